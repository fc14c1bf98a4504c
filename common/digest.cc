#include "common/digest.h"

#include <openssl/evp.h>

#include <utility>

namespace predella {
namespace {

struct FreeContext {
  void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
};
using Context = std::unique_ptr<EVP_MD_CTX, FreeContext>;

class EvpDigest final : public Digest {
 public:
  EvpDigest(Context context, size_t size)
      : context_(std::move(context)), size_(size) {}

  size_t size() const override { return size_; }
  void Update(absl::string_view data) override {
    failed_ = failed_ ||
              EVP_DigestUpdate(context_.get(), data.data(), data.size()) != 1;
  }
  std::string Finish() override {
    std::string out(size_, '\0');
    unsigned int size = 0;
    if (failed_ ||
        EVP_DigestFinal_ex(context_.get(),
                           reinterpret_cast<unsigned char*>(out.data()),
                           &size) != 1) {
      return "";  // equals no hash
    }
    return out;
  }

 private:
  const Context context_;
  const size_t size_;
  bool failed_ = false;
};

}  // namespace

std::unique_ptr<Digest> Digest::Make(absl::string_view algorithm) {
  const EVP_MD* const type =
      EVP_get_digestbyname(std::string(algorithm).c_str());
  if (type == nullptr) {
    return nullptr;
  }
  Context context(EVP_MD_CTX_new());
  if (context == nullptr ||
      EVP_DigestInit_ex(context.get(), type, nullptr) != 1) {
    return nullptr;
  }
  return std::make_unique<EvpDigest>(std::move(context),
                                     static_cast<size_t>(EVP_MD_size(type)));
}

}  // namespace predella
