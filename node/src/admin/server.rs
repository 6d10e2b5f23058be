//! The routes, and the loop that serves them.

use std::future::{Future, IntoFuture};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post, put};
use axum::{Router, serve as axum_serve};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::control::Control;
use super::guard::{Hosts, guard};
use super::{handlers, log, messages, nodes, reply, settings};

/// Largest request body, bytes.
const MAX_BODY_BYTES: usize = 64 * 1024;
/// Largest body with rules, bytes: thousands of them.
const MAX_RULES_BYTES: usize = 4 * 1024 * 1024;
/// Largest body with messages to publish, bytes.
const MAX_PUBLISH_BYTES: usize = 16 * 1024 * 1024;
/// How long requests that are under way may take once the node stops.
const DRAIN: Duration = Duration::from_secs(2);

/// Everything the API answers, without a socket.
pub fn router(control: Arc<dyn Control>, hosts: Hosts) -> Router {
    let cluster = Router::new()
        .route("/", get(handlers::status))
        .route("/init", post(handlers::init))
        .route("/token", post(handlers::token))
        .route("/join", post(handlers::join))
        .route("/leave", post(handlers::leave))
        .route("/forget", post(handlers::forget))
        .route("/transfer-leader", post(handlers::transfer_leader))
        .route("/ca", get(handlers::ca))
        .route("/rotate-ca", post(handlers::rotate_ca));
    let api = Router::new()
        .nest("/cluster", cluster)
        .route("/nodes", get(nodes::handlers::nodes))
        .route("/nodes/{node}", get(nodes::handlers::node))
        .route("/nodes/{node}/drain", post(nodes::handlers::drain))
        .route("/nodes/{node}/undrain", post(nodes::handlers::undrain))
        .route("/nodes/{node}/decommission", post(nodes::handlers::decommission))
        .route("/clients", get(handlers::clients))
        .route("/clients/{id}", get(handlers::client).delete(handlers::kick))
        .route("/retained", get(messages::handlers::list))
        .route("/retained/{*topic}", get(messages::handlers::show).delete(messages::handlers::remove))
        .route("/publish", post(messages::handlers::publish).layer(DefaultBodyLimit::max(MAX_PUBLISH_BYTES)))
        .route("/users", get(settings::handlers::users))
        .route("/users/{name}", put(settings::handlers::set_user).delete(settings::handlers::remove_user))
        .route(
            "/rules",
            get(settings::handlers::rules)
                .put(settings::handlers::set_rules)
                .layer(DefaultBodyLimit::max(MAX_RULES_BYTES)),
        )
        .route("/bans", get(settings::handlers::bans))
        .route("/bans/{kind}/{value}", put(settings::handlers::ban).delete(settings::handlers::lift_ban))
        .route("/acl/check", post(settings::handlers::check))
        .route("/log", get(log::get).put(log::put).delete(log::delete))
        .fallback(reply::no_such_path)
        .layer(from_fn_with_state(Arc::new(hosts), guard));
    Router::new()
        .nest("/api/v1", api)
        .route("/livez", get(handlers::livez))
        .route("/startupz", get(handlers::startupz))
        .route("/readyz", get(handlers::readyz))
        .route("/cluster/healthz", get(handlers::cluster_healthz))
        .route("/metrics", get(handlers::metrics))
        .fallback(reply::no_such_path)
        .method_not_allowed_fallback(reply::no_such_method)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(control)
}

/// Serves until `shutdown` completes, and then lets requests under way finish for a moment.
///
/// # Errors
/// Those of the listener.
pub async fn serve(
    listener: TcpListener,
    control: Arc<dyn Control>,
    hosts: Hosts,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    let service = router(control, hosts).into_make_service_with_connect_info::<SocketAddr>();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = axum_serve(listener, service).with_graceful_shutdown(async move {
        // An error means that the sender is gone, which is a reason to stop as well.
        let _ = stopped.await;
    });
    let mut serving = std::pin::pin!(serving.into_future());
    tokio::select! {
        result = &mut serving => return result,
        () = shutdown => {}
    }
    drop(stop);
    tokio::time::timeout(DRAIN, serving).await.unwrap_or(Ok(()))
}
