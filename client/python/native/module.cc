// predella_native: the jobs as Python sees them. Every function returns at
// once but wait() and wait_idle(), which release the GIL.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "client/python/native/jobs.h"
#include "common/digest.h"
#include "common/errors.h"
#include "common/rpc/listen.h"
#include "common/status_macros.h"
#include "predella/upload_mark.h"

namespace predella::native {
namespace {

namespace py = pybind11;

// Of the module, for as long as the process lives.
PyObject* error_class = nullptr;

[[noreturn]] void Raise(const absl::Status& status) {
  py::object error = py::reinterpret_borrow<py::object>(error_class)(
      std::string(status.message()));
  error.attr("code") = absl::StatusCodeToString(status.code());
  error.attr("reason") = ReasonOf(status);
  error.attr("metadata") = py::cast(MetadataOf(status));
  PyErr_SetObject(error_class, error.ptr());
  throw py::error_already_set();
}

void Check(const absl::Status& status) {
  if (!status.ok()) {
    Raise(status);
  }
}

template <typename T>
T Value(absl::StatusOr<T> value) {
  Check(value.status());
  return *std::move(value);
}

// Under the GIL.
void Drop(const std::vector<void*>& owners) {
  for (void* owner : owners) {
    Py_DECREF(static_cast<PyObject*>(owner));
  }
}

absl::Duration Seconds(double seconds) { return absl::Seconds(seconds); }

py::dict ImageToDict(const v1::Image& image) {
  py::dict hashes;
  for (const v1::Hash& hash : image.hashes()) {
    hashes[py::str(hash.algorithm())] = hash.hex();
  }
  py::dict result;
  result["name"] = image.name();
  result["generation"] = image.generation();
  result["size"] = image.size_bytes();
  result["hashes"] = hashes;
  result["location_key"] = image.location_key();
  result["upload"] = image.upload();
  return result;
}

py::list MountsToList(const v1::ListMountsResponse& mounts) {
  py::list result;
  for (const v1::Mount& mount : mounts.mounts()) {
    if (mount.admin_state() == v1::ADMIN_STATE_RETIRED) {
      continue;
    }
    py::dict one;
    one["name"] = mount.name();
    one["path"] = mount.path();
    one["priority"] = mount.priority();
    result.append(one);
  }
  return result;
}

void DefineJob(py::module_& m) {
  py::class_<Job, std::shared_ptr<Job>>(m, "Job")
      .def("ready", &Job::Ready, "What was asked for is there, or failed.")
      .def(
          "wait",
          [](Job& job, double seconds) { return job.Wait(Seconds(seconds)); },
          py::arg("seconds"), py::call_guard<py::gil_scoped_release>(),
          "Waits until ready(); False when the time passed first.")
      .def(
          "fileno", [](Job& job) { return Value(job.Descriptor()); },
          "Readable when ready() may have become true.")
      .def("drain", &Job::Drain,
           "Makes fileno() unreadable; to be called before ready().");
}

// What Python holds: an upload that it forgets is given up.
class Upload {
 public:
  explicit Upload(std::shared_ptr<UploadJob> job) : job_(std::move(job)) {}
  Upload(const Upload&) = delete;
  Upload& operator=(const Upload&) = delete;
  ~Upload() { job_->Abort(); }

  const std::shared_ptr<UploadJob>& job() const { return job_; }

  bool Write(const py::object& data) {
    Drop(job_->TakeRetired());
    // Bytes never change, so they are kept instead of copied; also those
    // that a memoryview shows.
    PyObject* base = data.ptr();
    if (PyMemoryView_Check(base)) {
      base = PyMemoryView_GET_BASE(base);
    }
    Py_buffer buffer;
    if (PyObject_GetBuffer(data.ptr(), &buffer, PyBUF_SIMPLE) != 0) {
      throw py::error_already_set();
    }
    const absl::string_view view(static_cast<const char*>(buffer.buf),
                                 static_cast<size_t>(buffer.len));
    absl::StatusOr<bool> taken = true;
    if (base != nullptr && PyBytes_CheckExact(base)) {
      Py_INCREF(base);
      taken = job_->Write(view, base);
      if (!taken.ok() || !*taken) {
        Py_DECREF(base);
      }
    } else {
      taken = job_->WriteCopy(view);
    }
    PyBuffer_Release(&buffer);
    return Value(std::move(taken));
  }

  py::object Result() {
    Drop(job_->TakeRetired());
    const std::optional<v1::Image> image = Value(job_->Result());
    return image.has_value() ? py::object(ImageToDict(*image))
                             : py::object(py::none());
  }

 private:
  const std::shared_ptr<UploadJob> job_;
};

void DefineUpload(py::module_& m) {
  py::class_<Upload>(m, "Upload")
      .def_property_readonly(
          "job", [](const Upload& u) { return std::shared_ptr<Job>(u.job()); },
          "To wait for.")
      .def("write", &Upload::Write, py::arg("data"),
           "Takes bytes, or anything that has a buffer; False while there is "
           "no room: wait for it and write the same again.")
      .def(
          "finish", [](const Upload& u) { u.job()->Finish(); },
          "Commits what was written.")
      .def(
          "abort", [](const Upload& u) { u.job()->Abort(); },
          "Gives up what is not committed.")
      .def(
          "hash_only", [](const Upload& u) { u.job()->HashOnly(); },
          "After a failure: what was and will be written is only hashed.")
      .def("result", &Upload::Result,
           "After finish(), when ready: the image, or None after hash_only().")
      .def(
          "hashes", [](const Upload& u) { return u.job()->hashes(); },
          "After finish(), when ready: {name: hexadecimal}.");
}

// A read that Python forgets is closed.
class Reader {
 public:
  explicit Reader(std::shared_ptr<ReadJob> job) : job_(std::move(job)) {}
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;
  ~Reader() { job_->Close(); }

  const std::shared_ptr<ReadJob>& job() const { return job_; }

  // The bytes object is filled by the thread, before anybody else sees it.
  void Ask(size_t size) {
    PyObject* const bytes =
        PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(size));
    if (bytes == nullptr) {
      throw py::error_already_set();
    }
    job_->Ask(PyBytes_AS_STRING(bytes), size, bytes);
  }
  py::object Take() {
    const ReadJob::Taken taken = Value(job_->Take());
    if (taken.owner == nullptr) {
      return py::bytes(taken.copy);
    }
    return py::reinterpret_steal<py::object>(
        static_cast<PyObject*>(taken.owner));
  }

 private:
  const std::shared_ptr<ReadJob> job_;
};

void DefineReader(py::module_& m) {
  py::class_<Reader>(m, "Reader")
      .def_property_readonly(
          "job", [](const Reader& r) { return std::shared_ptr<Job>(r.job()); },
          "To wait for.")
      .def(
          "image",
          [](const Reader& r) { return ImageToDict(Value(r.job()->Image())); },
          "When ready: the image that is read.")
      .def("ask", &Reader::Ask, py::arg("size"),
           "Asks for the next bytes: no more than are left.")
      .def("take", &Reader::Take,
           "When ready: the bytes that were asked for first.")
      .def("close", [](const Reader& r) { r.job()->Close(); });
}

// A call that was made, with the image or None as its result.
class Call {
 public:
  explicit Call(std::shared_ptr<CallJob> job) : job_(std::move(job)) {}
  const std::shared_ptr<CallJob>& job() const { return job_; }

 private:
  std::shared_ptr<CallJob> job_;
};

// Two connections: an upload may wait longer than a read.
class NativeClient {
 public:
  NativeClient(const std::string& endpoint, double write_timeout,
               double read_timeout, bool local_reads) {
    Drop(Exhume());
    Check(ParseAddress(endpoint).status());
    ClientOptions options;
    options.endpoint = endpoint;
    options.local_reads = local_reads ? ClientOptions::LocalReads::kAuto
                                      : ClientOptions::LocalReads::kNever;
    options.retry_for = Seconds(write_timeout);
    options.refused_for = std::min(options.refused_for, options.retry_for);
    writes_ = std::make_shared<Connections>(options);
    options.retry_for = Seconds(read_timeout);
    options.stall_timeout = std::min(options.stall_timeout, options.retry_for);
    reads_ = std::make_shared<Connections>(options);
  }

  std::unique_ptr<Upload> StartUpload(
      const std::string& image, std::optional<int64_t> size,
      const std::vector<std::pair<std::string, std::string>>& hashes,
      const std::string& writer) {
    Drop(Exhume());
    UploadOptions upload;
    upload.image = image;
    upload.writer = writer;
    upload.size_bytes = size;
    std::vector<HashName> names;
    names.reserve(hashes.size());
    for (const auto& [name, openssl] : hashes) {
      names.push_back({name, openssl});
    }
    return std::make_unique<Upload>(
        Value(UploadJob::Start(writes_, upload, names)));
  }

  std::unique_ptr<Reader> Read(const std::string& image, int64_t offset,
                               int64_t length) {
    Drop(Exhume());
    return std::make_unique<Reader>(
        Value(ReadJob::Start(reads_, {image, offset, length})));
  }

  std::unique_ptr<Call> Stat(const std::string& image) {
    return Start([image](Client& client) -> absl::StatusOr<CallJob::Answer> {
      ASSIGN_OR_RETURN(v1::Image found, client.GetImage(image));
      return CallJob::Answer{std::move(found), "", {}};
    });
  }

  std::unique_ptr<Call> Delete(const std::string& image,
                               const std::string& generation) {
    return Start(
        [image, generation](Client& client) -> absl::StatusOr<CallJob::Answer> {
          RETURN_IF_ERROR(client.DeleteImage(image, generation));
          return CallJob::Answer();
        });
  }

  std::unique_ptr<Call> Cluster() {
    return Start([](Client& client) -> absl::StatusOr<CallJob::Answer> {
      ASSIGN_OR_RETURN(v1::Cluster cluster, client.GetCluster());
      return CallJob::Answer{v1::Image(), cluster.uid(), {}};
    });
  }

  std::unique_ptr<Call> Mounts() {
    return Start([](Client& client) -> absl::StatusOr<CallJob::Answer> {
      ASSIGN_OR_RETURN(v1::ListMountsResponse mounts, client.ListMounts());
      return CallJob::Answer{v1::Image(), "", std::move(mounts)};
    });
  }

 private:
  std::unique_ptr<Call> Start(CallJob::Call call) {
    return std::make_unique<Call>(
        Value(CallJob::Start(reads_, std::move(call))));
  }

  std::shared_ptr<Connections> writes_;
  std::shared_ptr<Connections> reads_;
};

void DefineClient(py::module_& m) {
  py::class_<Call>(m, "Call")
      .def_property_readonly(
          "job", [](const Call& c) { return std::shared_ptr<Job>(c.job()); },
          "To wait for.")
      .def(
          "result",
          [](const Call& c) {
            const CallJob::Answer answer = Value(c.job()->Result());
            py::dict result = ImageToDict(answer.image);
            result["cluster_uid"] = answer.cluster_uid;
            result["mounts"] = MountsToList(answer.mounts);
            return result;
          },
          "When ready: the image of stat(), the cluster_uid of cluster(), the "
          "mounts of mounts().");
  py::class_<NativeClient>(
      m, "Client",
      "One coordinator. Nothing is dialled, and nothing of gRPC is started, "
      "before the first call: it may be made before a fork.")
      .def(py::init<const std::string&, double, double, bool>(),
           py::arg("endpoint"), py::arg("write_timeout"),
           py::arg("read_timeout"), py::arg("local_reads") = true,
           "local_reads: through open files, where an agent on this host gives "
           "them.")
      .def("start_upload", &NativeClient::StartUpload, py::arg("image"),
           py::arg("size"), py::arg("hashes"), py::arg("writer") = "",
           "size: None where it is not known. hashes: pairs of a name and "
           "OpenSSL's name for it. writer: see is_upload_of().")
      .def("read", &NativeClient::Read, py::arg("image"), py::arg("offset"),
           py::arg("length"), "length 0: to the end.")
      .def("stat", &NativeClient::Stat, py::arg("image"))
      .def("cluster", &NativeClient::Cluster)
      .def("mounts", &NativeClient::Mounts,
           "Those that are not given up; path is empty while the agent was not "
           "heard.")
      .def("delete", &NativeClient::Delete, py::arg("image"),
           py::arg("generation"));
}

PYBIND11_MODULE(predella_native, m) {
  m.doc() = "The C++ client of Predella";
  error_class = PyErr_NewExceptionWithDoc(
      "predella_native.Error",
      "What the service or the client said: code (\"NOT_FOUND\"), reason "
      "(\"IMAGE_NOT_FOUND\"), metadata (the numbers of the message).",
      nullptr, nullptr);
  if (error_class == nullptr) {
    throw py::error_already_set();
  }
  m.attr("Error") = py::reinterpret_borrow<py::object>(error_class);
  m.attr("__version__") = PREDELLA_VERSION;
  m.def(
      "has_hash",
      [](const std::string& openssl) {
        return Digest::Make(openssl) != nullptr;
      },
      py::arg("openssl"), "The crypto library has the hash.");
  m.def(
      "is_upload_of",
      [](const std::string& upload, const std::string& writer) {
        return IsUploadOf(upload, writer);
      },
      py::arg("upload"), py::arg("writer"),
      "The upload, as an image names the one that brought it, was started "
      "with this writer.");
  m.def(
      "wait_idle", [](double seconds) { return WaitIdle(Seconds(seconds)); },
      py::arg("seconds"), py::call_guard<py::gil_scoped_release>(),
      "Waits until no thread of this module runs.");
  DefineJob(m);
  DefineUpload(m);
  DefineReader(m);
  DefineClient(m);
}

}  // namespace
}  // namespace predella::native
