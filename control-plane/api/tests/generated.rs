//! The generated protocol code is checked in, so that a build needs no protobuf compiler. This test generates it
//! afresh (in pure Rust) and compares; `PILLION_REGENERATE=1 cargo test -p pillion-api --test generated` rewrites it.

use std::{fs, path::Path};

#[test]
#[expect(clippy::disallowed_methods, reason = "a switch for people, not a setting")]
fn generated_code_is_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let descriptors = protox::compile(["pillion/v1/control_plane.proto"], [root.join("proto")])
        .expect("the protocol definition compiles");
    let out = tempfile::tempdir().expect("a temporary folder");
    tonic_prost_build::configure()
        .bytes(".pillion.v1.Update.payload")
        .codec_path("crate::codec::Codec")
        // No transport of tonic's own: both sides bring connections that carry SPIFFE identities.
        .build_transport(false)
        .out_dir(out.path())
        .compile_fds(descriptors)
        .expect("code generation");

    let fresh = fs::read_to_string(out.path().join("pillion.v1.rs")).expect("the generated file");
    let checked_in = root.join("src/generated/pillion.v1.rs");
    if std::env::var_os("PILLION_REGENERATE").is_some() {
        fs::write(&checked_in, &fresh).expect("write the generated file");
    }
    let current = fs::read_to_string(&checked_in).unwrap_or_default();
    assert!(
        current == fresh,
        "src/generated/pillion.v1.rs is out of date: run PILLION_REGENERATE=1 cargo test -p pillion-api --test generated"
    );
}
