// Reading an image through its open file instead of through its agent.
#ifndef PREDELLA_CLIENT_INTERNAL_LOCAL_READ_H_
#define PREDELLA_CLIENT_INTERNAL_LOCAL_READ_H_

#include <cstdint>
#include <memory>

#include "client/internal/local_image.h"
#include "client/internal/stub.h"

namespace predella::client_internal {

// Threads that hang in a disk are left behind; while there are so many of them,
// no more are risked.
inline constexpr int kMostThreadsLeftBehind = 4;

// Reads [offset, end) on a thread of its own, which also opens the image and
// runs at most 8 MiB ahead. The stream looks like that of a ReadImage: a
// header, then chunks with the checksums that the record has of them, which
// whoever takes a chunk compares. Where a chunk is only a part of its MiB, that
// was checked whole: DATA_LOSS, CHECKSUM_MISMATCH, as when the file ends early.
// UNAVAILABLE when the agent withdraws the file: what was read until then comes
// first. Destroying it waits for nothing, and closes the file at the latest
// when the read that is under way returns.
//
// With `offers` it puts MiBs where Offer says, and waits for offers unless
// somebody waits for it.
//
// Null while too many threads hang, and where there can be none.
std::unique_ptr<ReadStream> StartLocalRead(LocalImageOpener open,
                                           int64_t offset, int64_t end,
                                           bool offers = false);

}  // namespace predella::client_internal

#endif  // PREDELLA_CLIENT_INTERNAL_LOCAL_READ_H_
