//! A member's part in replacing the cluster's authority: it says what it believes, and takes the steps
//! that the leader asks for. `raft/rotate.rs` has the leader's part.

use rookery_proto::consensus as pb;
use rookery_proto::consensus::keys_server::{Keys, KeysServer};
use tonic::{Request, Response, Status};
use tracing::info;

use super::authority::{Authority, Fingerprint};
use super::keyring::{Keyring, Standing, Step, StepError};
use crate::env;
use crate::raft::wire;

/// Largest request, bytes: an authority has about 1 KiB.
const MAX_REQUEST: usize = 64 << 10;

/// To be mounted behind [`super::Verifier`].
pub fn keys_server(keyring: Keyring) -> KeysServer<KeysService> {
    KeysServer::new(KeysService { keyring }).max_decoding_message_size(MAX_REQUEST)
}

pub struct KeysService {
    keyring: Keyring,
}

impl Keyring {
    /// [`Self::promise`] from where nothing may block.
    ///
    /// # Errors
    /// As there.
    pub async fn promise_soon(&self, term: u64) -> Result<(), StepError> {
        let keyring = self.clone();
        env::blocking(move || keyring.promise(term)).await
    }

    /// Takes a step, and returns when the connections are as it wants them.
    ///
    /// # Errors
    /// See [`StepError`].
    pub async fn carry_out(&self, step: Step, term: u64) -> Result<(), StepError> {
        let (keyring, before) = (self.clone(), self.standing());
        env::blocking(move || keyring.step(&step, term)).await?;
        let now = self.standing();
        if now != before {
            info!(current = %now.current, "{}", said(now));
        }
        // Also when the step was taken before: whoever asked may have missed that it was over.
        self.renew_connections().await;
        Ok(())
    }
}

fn said(standing: Standing) -> &'static str {
    match (standing.next, standing.old) {
        (Some(_), _) => "this node believes the cluster's next CA as well",
        (None, Some(_)) => "this node uses the cluster's new CA",
        (None, None) => "this node has forgotten the cluster's CA before this one",
    }
}

fn standing_out(keyring: &Keyring, with_target: bool) -> pb::KeysStanding {
    let standing = keyring.standing();
    let bytes = |f: Option<Fingerprint>| f.map_or_else(Vec::new, |f| f.0.to_vec()).into();
    let target = keyring.target().filter(|_| with_target);
    pb::KeysStanding {
        current: bytes(Some(standing.current)),
        next: bytes(standing.next),
        old: bytes(standing.old),
        target: target.map_or_else(Vec::new, |authority| authority.encode()).into(),
    }
}

/// What a member answered; `None`: it makes no sense.
pub(crate) fn standing_in(answer: &pb::KeysStanding) -> Option<Standing> {
    let optional = |bytes: &[u8]| match bytes {
        [] => Some(None),
        bytes => Some(Some(Fingerprint(bytes.try_into().ok()?))),
    };
    Some(Standing {
        current: optional(&answer.current)??,
        next: optional(&answer.next)?,
        old: optional(&answer.old)?,
    })
}

pub(crate) fn step_out(step: &Step) -> pb::keys_step::Step {
    use pb::keys_step::Step as S;
    match step {
        Step::Trust(authority) => S::Trust(authority.encode().into()),
        Step::Use(fingerprint) => S::Use(fingerprint.0.to_vec().into()),
        Step::KeepOnly(fingerprint) => S::KeepOnly(fingerprint.0.to_vec().into()),
    }
}

fn step_in(step: pb::keys_step::Step) -> Option<Step> {
    use pb::keys_step::Step as S;
    let fingerprint = |bytes: &[u8]| bytes.try_into().ok().map(Fingerprint);
    Some(match step {
        S::Trust(authority) => Step::Trust(Authority::decode(&authority)?),
        S::Use(bytes) => Step::Use(fingerprint(&bytes)?),
        S::KeepOnly(bytes) => Step::KeepOnly(fingerprint(&bytes)?),
    })
}

impl From<StepError> for Status {
    fn from(error: StepError) -> Self {
        match error {
            StepError::Disk(_) => Self::unavailable(error.to_string()),
            _ => Self::failed_precondition(error.to_string()),
        }
    }
}

#[tonic::async_trait]
impl Keys for KeysService {
    async fn look(&self, request: Request<pb::KeysLook>) -> Result<Response<pb::KeysStanding>, Status> {
        let pb::KeysLook { wire, group, term } = request.into_inner();
        wire::check(wire, group)?;
        if term != 0 {
            self.keyring.promise_soon(term).await?;
        }
        Ok(Response::new(standing_out(&self.keyring, term != 0)))
    }

    async fn step(&self, request: Request<pb::KeysStep>) -> Result<Response<pb::KeysStanding>, Status> {
        let pb::KeysStep { wire, group, term, step } = request.into_inner();
        wire::check(wire, group)?;
        let step = step.and_then(step_in).ok_or_else(|| Status::invalid_argument("no step of a rotation"))?;
        self.keyring.carry_out(step, term).await?;
        Ok(Response::new(standing_out(&self.keyring, false)))
    }
}
