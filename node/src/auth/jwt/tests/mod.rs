//! Tokens of all kinds, judged as a connection would have them judged.

mod forged;
mod origins;
mod rotation;
mod signer;
mod verdicts;

use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::*;
use crate::auth::testing::{allowed, denied, file, judged, login};
use signer::Signer;

const BAD: ReasonCode = ReasonCode::BadUserNameOrPassword;

/// Claims of a user, good for an hour.
fn claims_of(user: &str) -> Value {
    json!({"sub": user, "exp": env::wall_ms() / 1000 + 3600})
}

fn open(config: &JwtConfig) -> Jwt {
    Jwt::open(config, &Handle::current()).expect("it opens")
}

/// Of this key alone.
fn open_pem(signer: &Signer) -> Jwt {
    let (_dir, path) = file(signer.pem());
    open(&JwtConfig { public_key_file: Some(path), ..JwtConfig::default() })
}

fn open_secret(secret: &[u8]) -> Jwt {
    let (_dir, path) = file(secret);
    open(&JwtConfig { secret_file: Some(path), ..JwtConfig::default() })
}

async fn shown(jwt: &Jwt, token: &str) -> Verdict {
    judged(jwt, login("c1", "whoever", token)).await
}
