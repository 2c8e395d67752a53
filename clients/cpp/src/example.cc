// Shows what a client of Atlas does: it submits a job, follows it across a cut of its stream, reads its result, cancels
// another job, and reads the details of errors. It prints a line of JSON for each step.

#include <google/protobuf/struct.pb.h>
#include <google/protobuf/util/json_util.h>
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <iostream>
#include <random>
#include <stdexcept>
#include <string>

#include "follower.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace {

using atlas::v1::CancelJobRequest;
using atlas::v1::CancelJobResponse;
using atlas::v1::GetJobRequest;
using atlas::v1::GetJobResponse;
using atlas::v1::Job;
using atlas::v1::JobService;
using atlas::v1::SubmitJobRequest;
using atlas::v1::SubmitJobResponse;
using google::protobuf::Struct;
using google::protobuf::Value;

// A call that the server was not there for is repeated by the channel. With a request id, that is safe for a submit too.
constexpr char kRetries[] = R"({"methodConfig": [{
  "name": [{"service": "atlas.v1.JobService"}],
  "retryPolicy": {
    "maxAttempts": 4,
    "initialBackoff": "0.1s",
    "maxBackoff": "2s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"]
  }
}]})";

constexpr const char* kCodes[] = {
    "OK",           "CANCELLED",         "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
    "NOT_FOUND",    "ALREADY_EXISTS",    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
    "ABORTED",      "OUT_OF_RANGE",      "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
    "DATA_LOSS",    "UNAUTHENTICATED",
};

void Check(const grpc::Status& status) {
  if (!status.ok()) throw std::runtime_error(status.error_message());
}

void Check(const google::protobuf::util::Status& status) {
  if (!status.ok()) throw std::runtime_error(status.ToString());
}

// A line of JSON, built field by field.
class Line {
 public:
  explicit Line(const std::string& step) { Set("step", step); }

  Line& Set(const std::string& name, const char* value) { return field(name).set_string_value(value), *this; }
  Line& Set(const std::string& name, const std::string& value) { return field(name).set_string_value(value), *this; }
  Line& Set(const std::string& name, bool value) { return field(name).set_bool_value(value), *this; }
  Line& Set(const std::string& name, const Value& value) { return field(name) = value, *this; }
  Line& Set(const std::string& name, const std::vector<std::string>& values) {
    auto& list = *field(name).mutable_list_value();
    for (const auto& value : values) list.add_values()->set_string_value(value);
    return *this;
  }
  Line& Set(const std::string& name, const std::vector<std::int64_t>& values) {
    auto& list = *field(name).mutable_list_value();
    for (const auto value : values) list.add_values()->set_number_value(static_cast<double>(value));
    return *this;
  }

  void Say() const {
    std::string text;
    Check(google::protobuf::util::MessageToJsonString(line_, &text));
    std::cout << text << std::endl;
  }

 private:
  Value& field(const std::string& name) { return (*line_.mutable_fields())[name]; }

  Struct line_;
};

// The reason of an ErrorInfo, and the first field that a BadRequest names.
struct Details {
  std::string reason;
  std::string field;
};

Details DetailsOf(const google::rpc::Status& status) {
  Details found;
  google::rpc::ErrorInfo info;
  google::rpc::BadRequest wrong;
  for (const auto& detail : status.details()) {
    if (detail.UnpackTo(&info)) found.reason = info.reason();
    if (detail.UnpackTo(&wrong)) found.field = wrong.field_violations(0).field();
  }
  return found;
}

// What `grpc-status-details-bin` holds.
Details DetailsOf(const grpc::Status& status) {
  google::rpc::Status parsed;
  parsed.ParseFromString(status.error_details());
  return DetailsOf(parsed);
}

SubmitJobRequest MakeJob(const std::string& type, const std::string& payload) {
  SubmitJobRequest request;
  request.set_type(type);
  Check(google::protobuf::util::JsonStringToMessage(payload, request.mutable_payload()));
  std::random_device random;
  for (int i = 0; i < 4; i++) *request.mutable_request_id() += std::to_string(random()) + (i < 3 ? "-" : "");
  return request;
}

class Example {
 public:
  explicit Example(const std::string& target) {
    grpc::ChannelArguments arguments;
    arguments.SetServiceConfigJSON(kRetries);
    jobs_ = JobService::NewStub(grpc::CreateCustomChannel(target, grpc::InsecureChannelCredentials(), arguments));
  }

  // Submits a job twice, which makes one, and follows it to its result.
  void Success() {
    const SubmitJobRequest request = MakeJob("countdown", R"({"steps": 8, "delay": 0.1})");
    SubmitJobResponse first, again;
    Check(Call(&JobService::Stub::SubmitJob, request, &first));
    const std::string id = first.job().id();
    Line("submit").Set("job", id).Set("created", !first.deduplicated()).Say();
    Check(Call(&JobService::Stub::SubmitJob, request, &again));
    Line("submit_again").Set("job", again.job().id()).Set("created", !again.deduplicated()).Say();

    Follower watch(*jobs_, id);
    Check(watch.Run(/*cut_first=*/true));
    Line("watch").Set("states", watch.states).Set("versions", watch.versions).Set("resumed", watch.resumed).Say();

    GetJobRequest which;
    which.set_id(id);
    GetJobResponse got;
    Check(Call(&JobService::Stub::GetJob, which, &got));
    Line("result").Set("result", got.job().result()).Say();
  }

  // Stops a job and waits until it has stopped.
  void Cancel() {
    SubmitJobResponse submitted;
    Check(Call(&JobService::Stub::SubmitJob, MakeJob("sleep", R"({"seconds": 60})"), &submitted));
    CancelJobRequest request;
    request.set_id(submitted.job().id());
    request.set_reason("an example");
    CancelJobResponse cancelled;
    Check(Call(&JobService::Stub::CancelJob, request, &cancelled));
    Follower watch(*jobs_, request.id());
    Check(watch.Run());
    // What went wrong with a job is a status like that of a call.
    const std::string reason = DetailsOf(watch.job.error()).reason;
    Line("cancel").Set("job", request.id()).Set("state", Job::State_Name(watch.job.state())).Set("reason", reason).Say();
  }

  // Makes two mistakes and reads what the server says about them.
  void Refusals() {
    SubmitJobResponse unused;
    auto status = Call(&JobService::Stub::SubmitJob, MakeJob("countdown", R"({"steps": "many"})"), &unused);
    const Details wrong = DetailsOf(status);
    Line("error").Set("code", kCodes[status.error_code()]).Set("reason", wrong.reason).Set("field", wrong.field).Say();

    GetJobRequest request;
    request.set_id("no-such-job");
    GetJobResponse job;
    status = Call(&JobService::Stub::GetJob, request, &job);
    Line("not_found").Set("code", kCodes[status.error_code()]).Set("reason", DetailsOf(status).reason).Say();
  }

 private:
  // Makes a unary call. Each has a deadline.
  template <typename Request, typename Response>
  grpc::Status Call(grpc::Status (JobService::Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                    const Request& request, Response* response) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
    return (jobs_.get()->*method)(&context, request, response);
  }

  std::unique_ptr<JobService::Stub> jobs_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: example HOST:PORT\n";
    return 2;
  }
  try {
    Example example(argv[1]);
    example.Success();
    example.Cancel();
    example.Refusals();
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
