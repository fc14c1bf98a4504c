// The name of a mount whose own name belongs to another.
#ifndef PREDELLA_SERVER_INDEX_REPLACED_NAME_H_
#define PREDELLA_SERVER_INDEX_REPLACED_NAME_H_

#include <string>

#include "common/ids.h"

namespace predella::server {

// <name>.replaced-<first eight digits of the uid>, cut to a valid name. Borne
// by a mount whose name another was given, and then retired; or by one that
// others remember under a name that is bound to another mount, which waits for
// `mount replace` and is not retired
// (docs/adr/0011-rename-a-replaced-mount.md).
std::string ReplacedName(const std::string& name, const Uuid& uid);

}  // namespace predella::server

#endif  // PREDELLA_SERVER_INDEX_REPLACED_NAME_H_
