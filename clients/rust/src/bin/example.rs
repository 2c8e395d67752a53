//! Shows what a client of Atlas does: it submits a job, follows it across a cut of its stream, reads its result, cancels
//! another job, and reads the details of errors. It prints a line of JSON for each step.

use std::error::Error;

use atlas_client::v1::job_service_client::JobServiceClient;
use atlas_client::v1::{CancelJobRequest, GetJobRequest, SubmitJobRequest, SubmitJobResponse};
use atlas_client::v1::{job, submit_job_request};
use atlas_client::{Follower, retrying};
use prost_types::{ListValue, Struct, Value as ProtoValue, value::Kind};
use serde_json::{Value, json};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_types::StatusExt;
use uuid::Uuid;

type Jobs = JobServiceClient<Channel>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let target = std::env::args().nth(1).ok_or("usage: example HOST:PORT")?;
    let jobs = JobServiceClient::new(Endpoint::new(format!("http://{target}"))?.connect_lazy());
    success(&jobs).await?;
    cancel(&jobs).await?;
    refusals(&jobs).await?;
    Ok(())
}

/// Submits a job twice, which makes one, and follows it to its result.
async fn success(jobs: &Jobs) -> Result<(), Box<dyn Error>> {
    let request = a_job("countdown", json!({"steps": 8, "delay": 0.1}));
    let first = submit(jobs, &request).await?;
    let id = first.job.unwrap_or_default().id;
    println!("{}", json!({"step": "submit", "job": id, "created": !first.deduplicated}));
    let again = submit(jobs, &request).await?;
    let same = again.job.unwrap_or_default().id;
    println!("{}", json!({"step": "submit_again", "job": same, "created": !again.deduplicated}));

    let mut watch = Follower::new(jobs.clone(), &id);
    watch.run(true).await?;
    let (states, versions) = (watch.states, watch.versions);
    println!("{}", json!({"step": "watch", "states": states, "versions": versions, "resumed": watch.resumed}));

    let job = get(jobs, &id).await?;
    let Some(job::Output::Result(result)) = job.output else {
        return Err("there is no result".into());
    };
    println!("{}", json!({"step": "result", "result": to_json(result)}));
    Ok(())
}

/// Stops a job and waits until it has stopped.
async fn cancel(jobs: &Jobs) -> Result<(), Box<dyn Error>> {
    let submitted = submit(jobs, &a_job("sleep", json!({"seconds": 60}))).await?;
    let id = submitted.job.unwrap_or_default().id;
    let request = CancelJobRequest { id: id.clone(), reason: "an example".into(), ..Default::default() };
    retrying(request, async |request| jobs.clone().cancel_job(request).await).await?;
    let mut watch = Follower::new(jobs.clone(), &id);
    watch.run(false).await?;
    // What went wrong with a job is a status like that of a call.
    let reason = watch
        .job
        .error
        .as_ref()
        .and_then(|error| tonic_types::RpcStatusExt::get_details_error_info(error))
        .map(|info| info.reason);
    println!("{}", json!({"step": "cancel", "job": id, "state": watch.job.state().as_str_name(), "reason": reason}));
    Ok(())
}

/// Makes two mistakes and reads what the server says about them.
async fn refusals(jobs: &Jobs) -> Result<(), Box<dyn Error>> {
    let wrong = submit(jobs, &a_job("countdown", json!({"steps": "many"}))).await;
    let refusal = wrong.err().ok_or("this should have been refused")?;
    let field = refusal.get_details_bad_request().and_then(|wrong| Some(wrong.field_violations.first()?.field.clone()));
    println!("{}", json!({"step": "error", "code": name(refusal.code()), "reason": reason(&refusal), "field": field}));

    let refusal = get(jobs, "no-such-job").await.err().ok_or("this should have been refused")?;
    println!("{}", json!({"step": "not_found", "code": name(refusal.code()), "reason": reason(&refusal)}));
    Ok(())
}

async fn submit(jobs: &Jobs, request: &SubmitJobRequest) -> Result<SubmitJobResponse, Status> {
    retrying(request.clone(), async |request| jobs.clone().submit_job(request).await).await
}

async fn get(jobs: &Jobs, id: &str) -> Result<atlas_client::v1::Job, Status> {
    let request = GetJobRequest { id: id.into(), ..Default::default() };
    let answer = retrying(request, async |request| jobs.clone().get_job(request).await).await?;
    Ok(answer.job.unwrap_or_default())
}

fn reason(refusal: &Status) -> Option<String> {
    refusal.get_details_error_info().map(|info| info.reason)
}

/// The code as the gRPC documentation spells it.
fn name(code: Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

fn a_job(kind: &str, payload: Value) -> SubmitJobRequest {
    let Some(Kind::StructValue(payload)) = from_json(payload).kind else {
        panic!("a payload is an object");
    };
    SubmitJobRequest {
        r#type: kind.into(),
        input: Some(submit_job_request::Input::Payload(payload)),
        request_id: Uuid::new_v4().to_string(),
        ..Default::default()
    }
}

fn from_json(value: Value) -> ProtoValue {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(flag) => Kind::BoolValue(flag),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or(f64::NAN)),
        Value::String(text) => Kind::StringValue(text),
        Value::Array(values) => Kind::ListValue(ListValue { values: values.into_iter().map(from_json).collect() }),
        Value::Object(fields) => Kind::StructValue(Struct {
            fields: fields.into_iter().map(|(name, value)| (name, from_json(value))).collect(),
        }),
    };
    ProtoValue { kind: Some(kind) }
}

fn to_json(value: ProtoValue) -> Value {
    match value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(flag)) => flag.into(),
        Some(Kind::NumberValue(number)) => number.into(),
        Some(Kind::StringValue(text)) => text.into(),
        Some(Kind::ListValue(list)) => list.values.into_iter().map(to_json).collect(),
        Some(Kind::StructValue(object)) => {
            object.fields.into_iter().map(|(name, value)| (name, to_json(value))).collect()
        }
    }
}
