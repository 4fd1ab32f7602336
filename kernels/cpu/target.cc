// Compiled once per instruction set: CMakeLists.txt sets the flags and the three QSCORE_ definitions.
#include "kernels-inl.h"
