//! Makes one cluster of nodes that run, through their APIs, as an operator would. What is already
//! a cluster, from an earlier run on the same data, is left alone.

use std::time::Duration;

use serde_json::json;

use super::super::client::Api;
use super::super::exit::{Exit, Failure};
use super::ports::Ports;
use crate::admin::{ClusterStatus, JoinRequest, JoinToken, TokenRequest};
use crate::env;

const POLL: Duration = Duration::from_millis(50);
/// How long one request may take; what has to wait for others is asked again.
const REQUEST: Duration = Duration::from_secs(15);
const TOKEN_TTL_S: u64 = 600;

struct Peer<'a> {
    ports: &'a Ports,
    api: Api,
    has_cluster: bool,
}

/// Returns once every node serves.
///
/// # Errors
/// A node refuses, or `timeout` is over.
pub async fn form(nodes: &[Ports], timeout: Duration) -> Result<(), Failure> {
    let until = Until { deadline: env::now() + timeout };
    let mut peers = Vec::with_capacity(nodes.len());
    for ports in nodes {
        let api = Api::new(format!("127.0.0.1:{}", ports.api)).with_timeout(REQUEST);
        let status: ClusterStatus =
            until.answered(&ports.name, async || api.get("/api/v1/cluster").await).await?;
        peers.push(Peer { ports, api, has_cluster: status.cluster_id.is_some() });
    }
    if peers.iter().all(|peer| !peer.has_cluster)
        && let Some(first) = peers.first_mut()
    {
        let _: ClusterStatus = first.api.post("/api/v1/cluster/init", &json!({})).await?;
        first.has_cluster = true;
    }
    if let Some(member) = peers.iter().position(|peer| peer.has_cluster) {
        join_the_rest(&peers, member, &until).await?;
    }
    for peer in &peers {
        until
            .answered(&peer.ports.name, async || {
                if peer.api.is_ready().await {
                    Ok(())
                } else {
                    Err(Failure::new(Exit::Unhealthy, "it does not serve yet"))
                }
            })
            .await?;
    }
    Ok(())
}

async fn join_the_rest(peers: &[Peer<'_>], member: usize, until: &Until) -> Result<(), Failure> {
    if peers.iter().all(|peer| peer.has_cluster) {
        return Ok(());
    }
    let member = &peers[member];
    let token: JoinToken = until
        .answered(&member.ports.name, async || {
            member.api.post("/api/v1/cluster/token", &TokenRequest { ttl_s: TOKEN_TTL_S }).await
        })
        .await?;
    let request = JoinRequest { seeds: vec![format!("127.0.0.1:{}", member.ports.peer)], token: token.token };
    for peer in peers.iter().filter(|peer| !peer.has_cluster) {
        until
            .answered(&peer.ports.name, async || {
                let joined: Result<ClusterStatus, _> = peer.api.post("/api/v1/cluster/join", &request).await;
                let Err(failure) = joined else { return Ok(()) };
                // An earlier attempt of ours may have succeeded after we stopped waiting for it.
                match peer.api.get::<ClusterStatus>("/api/v1/cluster").await {
                    Ok(ClusterStatus { cluster_id: Some(_), .. }) => Ok(()),
                    _ => Err(failure),
                }
            })
            .await?;
    }
    Ok(())
}

struct Until {
    deadline: env::Instant,
}

impl Until {
    /// Asks again for as long as the answer is that it is too early.
    async fn answered<T>(
        &self,
        node: &str,
        mut ask: impl AsyncFnMut() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        loop {
            let failure = match ask().await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            if !matches!(failure.exit, Exit::Unhealthy | Exit::Timeout) {
                return Err(Failure::new(failure.exit, format!("{node}: {failure}")));
            }
            if env::now() >= self.deadline {
                return Err(Failure::new(Exit::Timeout, format!("{node} is not there in time: {failure}")));
            }
            tokio::time::sleep(POLL).await;
        }
    }
}
