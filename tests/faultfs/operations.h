// A directory shown at another place, each operation asked of the rules first.
#ifndef PREDELLA_TESTS_FAULTFS_OPERATIONS_H_
#define PREDELLA_TESTS_FAULTFS_OPERATIONS_H_

#ifndef FUSE_USE_VERSION
#define FUSE_USE_VERSION 312
#endif
#include <fuse3/fuse.h>

#include "tests/faultfs/rules.h"

namespace predella::faultfs {

// FUSE's private data of the mount.
struct PassThrough {
  int root = -1;        // the directory behind
  bool direct = false;  // no page cache: short reads reach the reader
  RuleTable* rules = nullptr;
};

// Nothing is cached in the kernel but the pages of open files: every call
// reaches the rules. A removed file that is open can be read and written, but
// fstat of it says ESTALE, as on NFS. O_DIRECT is taken as "past that cache"
// and not handed on: the buffers here are not aligned.
fuse_operations Operations();

}  // namespace predella::faultfs

#endif  // PREDELLA_TESTS_FAULTFS_OPERATIONS_H_
