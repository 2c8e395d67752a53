# frozen_string_literal: true

# Shows what a client of Atlas does: it submits a job, follows it across a cut of its stream, reads its result, cancels
# another job, and reads the details of errors. It prints a line of JSON for each step.

require 'grpc'
require 'json'
require 'securerandom'

require 'google/protobuf/well_known_types'
require 'google/rpc/error_details_pb'

$LOAD_PATH.unshift(File.join(__dir__, 'gen'))
require 'atlas/v1/job_service_services_pb'

include Atlas::V1

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 2.0

# A call that the server was not there for is repeated by the channel. With a request id, that is safe for a submit too.
RETRIES = {
  methodConfig: [{
    name: [{ service: 'atlas.v1.JobService' }],
    retryPolicy: {
      maxAttempts: 4,
      initialBackoff: "#{FIRST_PAUSE}s",
      maxBackoff: "#{LONGEST_PAUSE}s",
      backoffMultiplier: 2,
      retryableStatusCodes: ['UNAVAILABLE']
    }
  }]
}.freeze

# Follows one job to its end, over as many streams as it takes.
class Follower
  attr_reader :job, :states, :versions, :resumed

  def initialize(jobs, id)
    @jobs = jobs
    @id = id
    @token = ''
    @states = []
    @versions = []
    @resumed = false
  end

  # With `cut_first` it breaks off the first stream on purpose, to show that the next one goes on exactly.
  def run(cut_first: false)
    pause = FIRST_PAUSE
    loop do
      begin
        return self if stream(only_first: cut_first)

        cut_first = false
      rescue GRPC::Unavailable
        sleep(pause)
        pause = [2 * pause, LONGEST_PAUSE].min
      end
      @resumed = !@token.empty?
    end
  end

  private

  # Reads one stream. Whether it ended by itself, as the job did.
  def stream(only_first:)
    call = @jobs.watch_job(WatchJobRequest.new(id: @id, resume_token: @token), return_op: true)
    call.execute.each do |message|
      @token = message.resume_token
      @job = message.job if message.job
      message.transitions.each do |step|
        @states << step.state
        @versions << step.version
      end
      if only_first
        call.cancel
        return false
      end
    end
    true
  end
end

# Submits a job twice, which makes one, and follows it to its result.
def success(jobs)
  request = a_job('countdown', 'steps' => 8, 'delay' => 0.1)
  first = jobs.submit_job(request, deadline: soon)
  id = first.job.id
  say('submit', job: id, created: !first.deduplicated)
  again = jobs.submit_job(request, deadline: soon)
  say('submit_again', job: again.job.id, created: !again.deduplicated)

  watch = Follower.new(jobs, id).run(cut_first: true)
  say('watch', states: watch.states, versions: watch.versions, resumed: watch.resumed)

  job = jobs.get_job(GetJobRequest.new(id: id), deadline: soon).job
  say('result', result: job.result.to_ruby(true))
end

# Stops a job and waits until it has stopped.
def cancel(jobs)
  id = jobs.submit_job(a_job('sleep', 'seconds' => 60), deadline: soon).job.id
  jobs.cancel_job(CancelJobRequest.new(id: id, reason: 'an example'), deadline: soon)
  job = Follower.new(jobs, id).run.job
  # What went wrong with a job is a status like that of a call.
  say('cancel', job: id, state: job.state, reason: details(job.error)[:reason])
end

# Makes two mistakes and reads what the server says about them.
def refusals(jobs)
  say('error', **refusal { jobs.submit_job(a_job('countdown', 'steps' => 'many'), deadline: soon) })
  say('not_found', **refusal { jobs.get_job(GetJobRequest.new(id: 'no-such-job'), deadline: soon) })
end

# The code of a call that fails, and what its details say.
def refusal
  yield
  raise 'this should have been refused'
rescue GRPC::BadStatus => e
  name = GRPC::Core::StatusCodes.constants.find { |code| GRPC::Core::StatusCodes.const_get(code) == e.code }
  { code: name, **details(e.to_rpc_status) }
end

# The reason of an ErrorInfo, and the first field that a BadRequest names.
def details(status)
  status.details.each_with_object({}) do |detail, found|
    if detail.is(Google::Rpc::ErrorInfo)
      found[:reason] = detail.unpack(Google::Rpc::ErrorInfo).reason
    elsif detail.is(Google::Rpc::BadRequest)
      found[:field] = detail.unpack(Google::Rpc::BadRequest).field_violations.first.field
    end
  end
end

def a_job(type, payload)
  input = Google::Protobuf::Struct.from_hash(payload)
  SubmitJobRequest.new(type: type, payload: input, request_id: SecureRandom.uuid)
end

# Every unary call has a deadline.
def soon
  Time.now + 30
end

def say(step, **fields)
  puts JSON.generate({ step: step, **fields })
  $stdout.flush
end

abort 'usage: example.rb HOST:PORT' unless ARGV.size == 1
settings = { 'grpc.service_config' => JSON.generate(RETRIES) }
jobs = JobService::Stub.new(ARGV[0], :this_channel_is_insecure, channel_args: settings)
success(jobs)
cancel(jobs)
refusals(jobs)
