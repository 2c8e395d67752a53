//! Makes the stubs from the contract. protox parses it, so that no protoc is needed.

use std::error::Error;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let proto = Path::new("../../proto");
    let third_party = proto.join("third_party");
    println!("cargo:rerun-if-changed={}", proto.display());
    let contract = ["atlas/v1/job_service.proto", "atlas/v1/worker_service.proto"];
    let mut files = protox::compile(contract, [proto, &third_party])?;
    // The options that these define are for servers.
    files.file.retain(|file| !matches!(file.package(), "buf.validate" | "google.api"));
    tonic_prost_build::configure()
        .build_server(false)
        // tonic-types has these, and reads them out of a status.
        .extern_path(".google.rpc", "::tonic_types::pb")
        .compile_fds(files)?;
    Ok(())
}
