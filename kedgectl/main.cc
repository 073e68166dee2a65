#include <iostream>
#include <string>
#include <vector>

#include "kedgectl/interrupt.h"
#include "kedgectl/run.h"

int main(int argc, char** argv) {
  const kedge::kedgectl::Interrupt interrupt;
  return static_cast<int>(
      kedge::kedgectl::run(std::vector<std::string>(argv + 1, argv + argc), std::cout, std::cerr, interrupt.token()));
}
