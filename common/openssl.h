// Owners of OpenSSL's objects, and its errors as text. For sources that speak to OpenSSL; not for other headers.
#pragma once

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <ctime>
#include <memory>
#include <string>
#include <string_view>

#include "common/time.h"

namespace kedge::openssl {

template <auto release>
struct Release {
  template <typename T>
  void operator()(T* object) const {
    release(object);
  }
};

inline void free_names(GENERAL_NAMES* names) { GENERAL_NAMES_free(names); }
inline void free_text(void* text) { OPENSSL_free(text); }

using Bio = std::unique_ptr<BIO, Release<BIO_free_all>>;
using Key = std::unique_ptr<EVP_PKEY, Release<EVP_PKEY_free>>;
using Cert = std::unique_ptr<X509, Release<X509_free>>;
using Crl = std::unique_ptr<X509_CRL, Release<X509_CRL_free>>;
using Names = std::unique_ptr<GENERAL_NAMES, Release<free_names>>;
using Store = std::unique_ptr<X509_STORE, Release<X509_STORE_free>>;
using StoreContext = std::unique_ptr<X509_STORE_CTX, Release<X509_STORE_CTX_free>>;
using BigNumber = std::unique_ptr<BIGNUM, Release<BN_free>>;
using Integer = std::unique_ptr<ASN1_INTEGER, Release<ASN1_INTEGER_free>>;

// For reading; `text` outlives it.
inline Bio memory(std::string_view text) { return Bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size()))); }

inline std::string contents(BIO* bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  return std::string(data, static_cast<std::size_t>(size));
}

// RFC 5280, 4.1.2.5: a certificate without "a well-defined expiration date" ends in the year 9999, and others may begin
// in 0000. Both are more than SystemTime holds: the result is within 1970 and 2262. 1970 when it is no time at all.
inline SystemTime time_of(const ASN1_TIME* time) {
  std::tm parts{};
  if (ASN1_TIME_to_tm(time, &parts) != 1) return {};
  constexpr auto kLast = std::chrono::floor<std::chrono::seconds>(SystemTime::max()).time_since_epoch().count();
  return SystemTime(std::chrono::seconds(std::clamp<std::int64_t>(timegm(&parts), 0, kLast)));
}

// What went wrong last, in OpenSSL's words; forgets it.
inline std::string last_error() {
  const auto code = ERR_peek_last_error();
  ERR_clear_error();
  const char* reason = ERR_reason_error_string(code);
  return reason == nullptr ? "unknown error" : reason;
}

}  // namespace kedge::openssl
