#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "atlas/v1/job_service.grpc.pb.h"

// Follows one job to its end, over as many streams as it takes.
class Follower {
 public:
  Follower(atlas::v1::JobService::Stub& jobs, std::string id) : jobs_(jobs), id_(std::move(id)) {}

  // With `cut_first` it breaks off the first stream on purpose, to show that the next one goes on exactly.
  grpc::Status Run(bool cut_first = false);

  atlas::v1::Job job;
  std::vector<std::string> states;
  std::vector<std::int64_t> versions;
  bool resumed = false;

 private:
  grpc::Status Stream(bool only_first);

  atlas::v1::JobService::Stub& jobs_;
  std::string id_;
  std::string token_;
};
