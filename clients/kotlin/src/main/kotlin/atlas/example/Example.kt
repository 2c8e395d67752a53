package atlas.example

import atlas.v1.CancelJobRequest
import atlas.v1.GetJobRequest
import atlas.v1.JobServiceGrpc
import atlas.v1.JobServiceGrpcKt.JobServiceCoroutineStub
import atlas.v1.SubmitJobRequest
import com.google.gson.Gson
import com.google.gson.JsonParser
import com.google.protobuf.Struct
import com.google.protobuf.util.JsonFormat
import com.google.rpc.BadRequest
import com.google.rpc.Code
import com.google.rpc.ErrorInfo
import com.google.rpc.Status
import io.grpc.Grpc
import io.grpc.InsecureChannelCredentials
import io.grpc.StatusException
import io.grpc.protobuf.StatusProto
import java.util.UUID
import java.util.concurrent.TimeUnit
import kotlin.system.exitProcess
import kotlinx.coroutines.runBlocking

/** A call that the server was not there for is repeated by the channel. With a request id, that is safe for a submit too. */
private val RETRIES =
    mapOf(
        "methodConfig" to
            listOf(
                mapOf(
                    "name" to listOf(mapOf("service" to JobServiceGrpc.SERVICE_NAME)),
                    "retryPolicy" to
                        mapOf(
                            "maxAttempts" to 4.0,
                            "initialBackoff" to "0.1s",
                            "maxBackoff" to "2s",
                            "backoffMultiplier" to 2.0,
                            "retryableStatusCodes" to listOf("UNAVAILABLE"),
                        ),
                ),
            ),
    )

/**
 * Shows what a client of Atlas does: it submits a job, follows it across a cut of its stream, reads its result, cancels
 * another job, and reads the details of errors. It prints a line of JSON for each step.
 */
fun main(args: Array<String>) {
    if (args.size != 1) {
        System.err.println("usage: Example HOST:PORT")
        exitProcess(2)
    }
    val channel =
        Grpc.newChannelBuilder(args[0], InsecureChannelCredentials.create()).defaultServiceConfig(RETRIES).build()
    try {
        runBlocking {
            val example = Example(JobServiceCoroutineStub(channel))
            example.success()
            example.cancel()
            example.refusals()
        }
    } finally {
        channel.shutdownNow().awaitTermination(5, TimeUnit.SECONDS)
    }
}

private class Example(private val jobs: JobServiceCoroutineStub) {
    /** The stub for unary calls: each has a deadline. */
    private val call
        get() = jobs.withDeadlineAfter(30, TimeUnit.SECONDS)

    /** Submits a job twice, which makes one, and follows it to its result. */
    suspend fun success() {
        val request = job("countdown", """{"steps": 8, "delay": 0.1}""")
        val first = call.submitJob(request)
        val id = first.job.id
        say("submit", "job" to id, "created" to !first.deduplicated)
        val again = call.submitJob(request)
        say("submit_again", "job" to again.job.id, "created" to !again.deduplicated)

        val watch = Follower(jobs, id)
        watch.run(cutFirst = true)
        say("watch", "states" to watch.states, "versions" to watch.versions, "resumed" to watch.resumed)

        val result = call.getJob(GetJobRequest.newBuilder().setId(id).build()).job.result
        say("result", "result" to JsonParser.parseString(JsonFormat.printer().print(result)))
    }

    /** Stops a job and waits until it has stopped. */
    suspend fun cancel() {
        val id = call.submitJob(job("sleep", """{"seconds": 60}""")).job.id
        call.cancelJob(CancelJobRequest.newBuilder().setId(id).setReason("an example").build())
        val watch = Follower(jobs, id)
        watch.run()
        // What went wrong with a job is a status like that of a call.
        say("cancel", "job" to id, "state" to watch.job.state, "reason" to Details(watch.job.error).reason)
    }

    /** Makes two mistakes and reads what the server says about them. */
    suspend fun refusals() {
        val wrong = refused { call.submitJob(job("countdown", """{"steps": "many"}""")) }
        say("error", "code" to wrong.code, "reason" to wrong.reason, "field" to wrong.field)
        val unknown = refused { call.getJob(GetJobRequest.newBuilder().setId("no-such-job").build()) }
        say("not_found", "code" to unknown.code, "reason" to unknown.reason)
    }

    private suspend fun refused(mistake: suspend () -> Unit): Details {
        try {
            mistake()
        } catch (refusal: StatusException) {
            return Details(StatusProto.fromThrowable(refusal)!!)
        }
        error("this should have been refused")
    }
}

/** A code, the reason of its ErrorInfo, and the first field that its BadRequest names. */
private class Details(status: Status) {
    val code: Code = Code.forNumber(status.code)
    val reason = status.detailsList.find { it.`is`(ErrorInfo::class.java) }?.unpack(ErrorInfo::class.java)?.reason
    val field =
        status.detailsList
            .find { it.`is`(BadRequest::class.java) }
            ?.unpack(BadRequest::class.java)
            ?.getFieldViolations(0)
            ?.field
}

private fun job(type: String, payload: String): SubmitJobRequest {
    val input = Struct.newBuilder().also { JsonFormat.parser().merge(payload, it) }
    val requestId = UUID.randomUUID().toString()
    return SubmitJobRequest.newBuilder().setType(type).setPayload(input).setRequestId(requestId).build()
}

/** Prints a step and its fields. */
private fun say(step: String, vararg fields: Pair<String, Any?>) = println(Gson().toJson(mapOf("step" to step, *fields)))
