// Telling whose upload an image came by.
#ifndef PREDELLA_CLIENT_INCLUDE_PREDELLA_UPLOAD_MARK_H_
#define PREDELLA_CLIENT_INCLUDE_PREDELLA_UPLOAD_MARK_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace predella {

// A new upload id: 60 random bits and, where `writer` is not empty, a mark of
// it (62 bits of its SHA-256) in a UUID of version 8. The id stays with the
// image that the upload brings (Image.upload), wherever its record is taken
// in. INTERNAL where the crypto library computes no SHA-256.
absl::StatusOr<std::string> DrawUploadId(absl::string_view writer);

// Whether `upload`, bare or as uploads/{uuid}, bears the mark of this writer.
// No secret: whoever may write can give his upload any id. False for an empty
// writer, and for what is no upload id.
bool IsUploadOf(absl::string_view upload, absl::string_view writer);

}  // namespace predella

#endif  // PREDELLA_CLIENT_INCLUDE_PREDELLA_UPLOAD_MARK_H_
