#include "follower.h"

#include <algorithm>
#include <chrono>
#include <thread>

using std::chrono::milliseconds;

namespace {

constexpr milliseconds kFirstPause{100};
constexpr milliseconds kLongestPause{2000};

}  // namespace

grpc::Status Follower::Run(bool cut_first) {
  for (auto pause = kFirstPause;; pause = std::min(2 * pause, kLongestPause)) {
    const grpc::Status status = Stream(cut_first);
    if (status.error_code() == grpc::StatusCode::UNAVAILABLE) {
      std::this_thread::sleep_for(pause);
    } else if (!(cut_first && status.error_code() == grpc::StatusCode::CANCELLED)) {
      return status;
    }
    cut_first = false;
    resumed = !token_.empty();
  }
}

// Reads one stream. It ends with OK when the job has ended.
grpc::Status Follower::Stream(bool only_first) {
  grpc::ClientContext context;
  atlas::v1::WatchJobRequest request;
  request.set_id(id_);
  request.set_resume_token(token_);
  const auto stream = jobs_.WatchJob(&context, request);
  atlas::v1::WatchJobResponse message;
  while (stream->Read(&message)) {
    token_ = message.resume_token();
    if (message.has_job()) job = message.job();
    for (const auto& step : message.transitions()) {
      states.push_back(atlas::v1::Job::State_Name(step.state()));
      versions.push_back(step.version());
    }
    if (only_first) context.TryCancel();
  }
  return stream->Finish();
}
