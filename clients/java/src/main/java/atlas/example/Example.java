package atlas.example;

import atlas.v1.CancelJobRequest;
import atlas.v1.GetJobRequest;
import atlas.v1.JobServiceGrpc;
import atlas.v1.SubmitJobRequest;
import com.google.gson.Gson;
import com.google.gson.JsonElement;
import com.google.gson.JsonParser;
import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Struct;
import com.google.protobuf.util.JsonFormat;
import com.google.rpc.BadRequest;
import com.google.rpc.Code;
import com.google.rpc.ErrorInfo;
import com.google.rpc.Status;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.TimeUnit;

/**
 * Shows what a client of Atlas does: it submits a job, follows it across a cut of its stream, reads its result, cancels
 * another job, and reads the details of errors. It prints a line of JSON for each step.
 */
public final class Example {
  /**
   * A call that the server was not there for is repeated by the channel. With a request id, that is safe for a submit
   * too.
   */
  private static final Map<String, ?> RETRIES =
      Map.of(
          "methodConfig",
          List.of(
              Map.of(
                  "name", List.of(Map.of("service", JobServiceGrpc.SERVICE_NAME)),
                  "retryPolicy",
                      Map.of(
                          "maxAttempts", 4.0,
                          "initialBackoff", "0.1s",
                          "maxBackoff", "2s",
                          "backoffMultiplier", 2.0,
                          "retryableStatusCodes", List.of("UNAVAILABLE")))));

  private static final Gson JSON = new Gson();

  private final JobServiceGrpc.JobServiceBlockingStub jobs;

  private Example(ManagedChannel channel) {
    jobs = JobServiceGrpc.newBlockingStub(channel);
  }

  public static void main(String[] args) throws Exception {
    if (args.length != 1) {
      throw new IllegalArgumentException("usage: Example HOST:PORT");
    }
    ManagedChannel channel =
        Grpc.newChannelBuilder(args[0], InsecureChannelCredentials.create()).defaultServiceConfig(RETRIES).build();
    try {
      Example example = new Example(channel);
      example.success();
      example.cancel();
      example.refusals();
    } finally {
      channel.shutdownNow().awaitTermination(5, TimeUnit.SECONDS);
    }
  }

  /** The stub for unary calls: each has a deadline. */
  private JobServiceGrpc.JobServiceBlockingStub call() {
    return jobs.withDeadlineAfter(30, TimeUnit.SECONDS);
  }

  /** Submits a job twice, which makes one, and follows it to its result. */
  private void success() throws InterruptedException, InvalidProtocolBufferException {
    SubmitJobRequest request = job("countdown", "{\"steps\": 8, \"delay\": 0.1}");
    var first = call().submitJob(request);
    String id = first.getJob().getId();
    say("submit", "job", id, "created", !first.getDeduplicated());
    var again = call().submitJob(request);
    say("submit_again", "job", again.getJob().getId(), "created", !again.getDeduplicated());

    Follower watch = new Follower(jobs, id);
    watch.run(true);
    say("watch", "states", watch.states, "versions", watch.versions, "resumed", watch.resumed);

    var result = call().getJob(GetJobRequest.newBuilder().setId(id).build()).getJob().getResult();
    JsonElement json = JsonParser.parseString(JsonFormat.printer().print(result));
    say("result", "result", json);
  }

  /** Stops a job and waits until it has stopped. */
  private void cancel() throws InterruptedException, InvalidProtocolBufferException {
    String id = call().submitJob(job("sleep", "{\"seconds\": 60}")).getJob().getId();
    call().cancelJob(CancelJobRequest.newBuilder().setId(id).setReason("an example").build());
    Follower watch = new Follower(jobs, id);
    watch.run(false);
    // What went wrong with a job is a status like that of a call.
    String reason = Details.of(watch.job.getError()).reason();
    say("cancel", "job", id, "state", watch.job.getState(), "reason", reason);
  }

  /** Makes two mistakes and reads what the server says about them. */
  private void refusals() throws InvalidProtocolBufferException {
    try {
      call().submitJob(job("countdown", "{\"steps\": \"many\"}"));
      throw new AssertionError("this should have been refused");
    } catch (StatusRuntimeException refusal) {
      Details details = Details.of(StatusProto.fromThrowable(refusal));
      say("error", "code", details.code(), "reason", details.reason(), "field", details.field());
    }
    try {
      call().getJob(GetJobRequest.newBuilder().setId("no-such-job").build());
      throw new AssertionError("this should have been refused");
    } catch (StatusRuntimeException refusal) {
      Details details = Details.of(StatusProto.fromThrowable(refusal));
      say("not_found", "code", details.code(), "reason", details.reason());
    }
  }

  /** A code, the reason of its ErrorInfo, and the first field that its BadRequest names. */
  private record Details(Code code, String reason, String field) {
    static Details of(Status status) throws InvalidProtocolBufferException {
      String reason = null;
      String field = null;
      for (Any detail : status.getDetailsList()) {
        if (detail.is(ErrorInfo.class)) {
          reason = detail.unpack(ErrorInfo.class).getReason();
        } else if (detail.is(BadRequest.class)) {
          field = detail.unpack(BadRequest.class).getFieldViolations(0).getField();
        }
      }
      return new Details(Code.forNumber(status.getCode()), reason, field);
    }
  }

  private static SubmitJobRequest job(String type, String payload) throws InvalidProtocolBufferException {
    Struct.Builder input = Struct.newBuilder();
    JsonFormat.parser().merge(payload, input);
    String requestId = UUID.randomUUID().toString();
    return SubmitJobRequest.newBuilder().setType(type).setPayload(input).setRequestId(requestId).build();
  }

  /** Prints a step and its fields, which are given as names and values by turns. */
  private static void say(String step, Object... fields) {
    Map<String, Object> line = new LinkedHashMap<>(Map.of("step", step));
    for (int i = 0; i < fields.length; i += 2) {
      line.put((String) fields[i], fields[i + 1]);
    }
    System.out.println(JSON.toJson(line));
  }
}
