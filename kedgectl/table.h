// Aligned text tables. Cells come from the network: control characters in them are shown as spaces, so that a cell can
// neither begin a line of its own nor steer the terminal.
#pragma once

#include <string>
#include <vector>

namespace kedge::kedgectl {

enum class Align { kLeft, kRight };

struct Column {
  std::string title;
  Align align = Align::kLeft;
  // The column is at least this wide.
  std::size_t width = 0;
};

using Row = std::vector<std::string>;

// Two spaces between columns, none at the end of a line; an empty cell is "-". Each row has a cell for each column.
class Table {
 public:
  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}

  void add(Row row);
  // The titles and all rows, each column as wide as its widest cell.
  std::string to_string() const;

  // One line by the columns' least widths alone, for tables that are printed as their rows come.
  std::string header_line() const;
  std::string line(const Row& row) const;

 private:
  std::vector<Column> columns_;
  std::vector<Row> rows_;
};

// `text` with each control character replaced by a space.
std::string printable(std::string_view text);

}  // namespace kedge::kedgectl
