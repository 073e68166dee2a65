#include "kedgectl/table.h"

#include <algorithm>

namespace kedge::kedgectl {
namespace {

// Characters of UTF-8 text, which is what columns are counted in.
std::size_t width_of(std::string_view text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0U) != 0x80; }));
}

std::string format_line(const std::vector<Column>& columns, const std::vector<std::size_t>& widths, const Row& row) {
  std::string line;
  for (std::size_t i = 0; i < columns.size(); ++i) {
    const std::string cell = row[i].empty() ? "-" : printable(row[i]);
    const std::size_t width = width_of(cell);
    const std::string fill(widths[i] > width ? widths[i] - width : 0, ' ');
    if (i != 0) line += "  ";
    line += columns[i].align == Align::kRight ? fill + cell : cell + fill;
  }
  line.erase(line.find_last_not_of(' ') + 1);
  line += '\n';
  return line;
}

std::vector<std::size_t> least_widths(const std::vector<Column>& columns) {
  std::vector<std::size_t> widths;
  for (const auto& column : columns) widths.push_back(std::max(column.width, width_of(column.title)));
  return widths;
}

Row titles(const std::vector<Column>& columns) {
  Row row;
  for (const auto& column : columns) row.push_back(column.title);
  return row;
}

}  // namespace

std::string printable(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    const bool c1 = c == 0xc2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) >= 0x80 &&
                    static_cast<unsigned char>(text[i + 1]) < 0xa0;
    if (c1) ++i;
    out += c1 || c < 0x20 || c == 0x7f ? ' ' : text[i];
  }
  return out;
}

void Table::add(Row row) { rows_.push_back(std::move(row)); }

std::string Table::to_string() const {
  auto widths = least_widths(columns_);
  for (const auto& row : rows_) {
    for (std::size_t i = 0; i < widths.size(); ++i) widths[i] = std::max(widths[i], width_of(printable(row[i])));
  }
  std::string text = format_line(columns_, widths, titles(columns_));
  for (const auto& row : rows_) text += format_line(columns_, widths, row);
  return text;
}

std::string Table::header_line() const { return line(titles(columns_)); }

std::string Table::line(const Row& row) const { return format_line(columns_, least_widths(columns_), row); }

}  // namespace kedge::kedgectl
