//! One encrypted connection between nodes, as gRPC sees it, and the registry of all of them.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::task::AtomicWaker;
use parking_lot::Mutex;
use rustls::pki_types::UnixTime;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;
use tokio_rustls::TlsStream;
use tonic::transport::Uri;
use tonic::transport::server::Connected;
use tracing::warn;

use super::auth::ANYONE;
use super::authority::{Fingerprint, Proven, Side};
use super::keyring::{Keyring, Ready};
use super::tls;
use crate::env;
use crate::state::NodeId;

/// Between the ends of two connections that are to be renewed: one is back before the next goes.
const RENEWAL_PAUSE: Duration = Duration::from_millis(50);
/// A caller without a certificate can only join, and has to be done by then.
const UNPROVEN_LIFE: Duration = Duration::from_secs(20);

/// By whom a call came in: put on every request by the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    pub from: SocketAddr,
    /// What its certificate proved; `None`: it showed none.
    pub proven: Option<Proven>,
}

impl Caller {
    /// Where a request came from, for people.
    pub(super) fn shown<T>(request: &tonic::Request<T>) -> String {
        let caller = request.extensions().get::<Option<Self>>().copied().flatten();
        caller.map_or_else(|| "a peer".to_owned(), |caller| caller.from.to_string())
    }
}

/// What one connection is proved by.
pub(super) struct Link {
    /// This side's CA.
    own: Fingerprint,
    /// The other side's.
    peer: Option<Fingerprint>,
    /// This node dialled.
    outgoing: bool,
    cut: AtomicBool,
    reader: AtomicWaker,
}

impl Link {
    /// It would not be made this way any more.
    fn is_stale(&self, ready: &Ready) -> bool {
        let unused = self.outgoing && self.own != ready.standing.current;
        unused || self.peer.is_some_and(|peer| !ready.roots.believes(peer))
    }

    fn cut(&self) {
        self.cut.store(true, Ordering::Release);
        self.reader.wake();
    }
}

/// All connections of this node.
#[derive(Default)]
pub(super) struct Links(Mutex<Vec<Weak<Link>>>);

impl Links {
    fn add(&self, link: &Arc<Link>) {
        let mut links = self.0.lock();
        // Only when it costs an allocation anyway.
        if links.len() == links.capacity() {
            links.retain(|link| link.strong_count() > 0);
        }
        links.push(Arc::downgrade(link));
    }

    /// Ends what is stale: what came in at once, since its maker has renewed it unless it cannot; what
    /// goes out one by one.
    pub(super) async fn renew(&self, ready: &Ready) {
        let stale: Vec<_> = {
            let links = self.0.lock();
            links.iter().filter_map(Weak::upgrade).filter(|link| link.is_stale(ready)).collect()
        };
        let (outgoing, incoming): (Vec<_>, Vec<_>) = stale.into_iter().partition(|link| link.outgoing);
        incoming.iter().for_each(|link| link.cut());
        for link in outgoing {
            link.cut();
            drop(link);
            tokio::time::sleep(RENEWAL_PAUSE).await;
        }
    }
}

/// One connection.
pub struct PeerStream {
    io: TlsStream<TcpStream>,
    caller: Option<Caller>,
    /// The node that is called, for what is logged.
    whom: NodeId,
    link: Arc<Link>,
    keyring: Keyring,
    unproven: Option<Unproven>,
}

/// What bounds a caller that has shown no certificate.
struct Unproven {
    ends: Pin<Box<Sleep>>,
    _among_few: OwnedSemaphorePermit,
}

impl PeerStream {
    /// Calls the node `whom`, or any of the cluster.
    ///
    /// # Errors
    /// Those of the network; whoever answers is not that node.
    pub(super) async fn dial(keyring: &Keyring, to: Uri, whom: NodeId) -> io::Result<Self> {
        let ready = keyring.ready();
        let io = tls::connect(to, ready.client.clone()).await?;
        let proven = proven(io.get_ref().1.peer_certificates(), &ready, Side::Server)
            .ok_or_else(|| io::Error::other("no certificate of this cluster"))?;
        if whom != ANYONE && proven.node != whom {
            let message = format!("node {:016x} answers where {whom:016x} was expected", proven.node);
            return Err(io::Error::other(message));
        }
        if ready.standing.next == Some(proven.authority) {
            // A rotation went on while this node was away: what the others use, all that were there
            // believe, and this node's present certificate may be forgotten already.
            let (keyring, authority) = (keyring.clone(), proven.authority);
            env::blocking(move || keyring.follow(authority)).await.map_err(io::Error::other)?;
            return Err(io::Error::other("the cluster's CA was replaced, this node follows"));
        }
        Self::linked(TlsStream::Client(io), None, whom, Some(proven), &ready, keyring, None)
    }

    /// Who called, once the handshake is over; `unproven` is for one that has no certificate.
    ///
    /// # Errors
    /// It has no certificate, and there are enough of those.
    pub(super) fn accepted(
        keyring: &Keyring,
        ready: &Ready,
        io: tokio_rustls::server::TlsStream<TcpStream>,
        from: SocketAddr,
        permit: impl FnOnce() -> Option<OwnedSemaphorePermit>,
    ) -> io::Result<Self> {
        let proven = proven(io.get_ref().1.peer_certificates(), ready, Side::Client);
        let unproven = match proven {
            Some(_) => None,
            None => {
                let permit = permit().ok_or_else(|| io::Error::other("too many without a certificate"))?;
                let ends = Box::pin(tokio::time::sleep(UNPROVEN_LIFE));
                Some(Unproven { ends, _among_few: permit })
            }
        };
        let caller = Some(Caller { from, proven });
        Self::linked(TlsStream::Server(io), caller, ANYONE, proven, ready, keyring, unproven)
    }

    fn linked(
        io: TlsStream<TcpStream>,
        caller: Option<Caller>,
        whom: NodeId,
        proven: Option<Proven>,
        ready: &Ready,
        keyring: &Keyring,
        unproven: Option<Unproven>,
    ) -> io::Result<Self> {
        let link = Arc::new(Link {
            own: ready.standing.current,
            peer: proven.map(|proven| proven.authority),
            outgoing: caller.is_none(),
            cut: AtomicBool::new(false),
            reader: AtomicWaker::new(),
        });
        keyring.links().add(&link);
        // The keys may have been replaced during the handshake, and the links renewed before this one
        // was among them.
        if link.is_stale(&keyring.ready()) {
            return Err(io::Error::other("the keys were replaced meanwhile"));
        }
        Ok(Self { io, caller, whom, link, keyring: keyring.clone(), unproven })
    }

    /// Says why a peer ends a connection, when it is about certificates: only so does the operator of
    /// a node that was left behind learn of it.
    fn note(&self, error: &io::Error) {
        if self.caller.is_none()
            && tls::rejected(error)
            && let Some(suppressed) = self.keyring.log().permit()
        {
            warn_of_rejection(self.whom, suppressed, error);
        }
    }
}

/// What an operator has to know, and to do.
pub(super) fn warn_of_rejection(whom: NodeId, suppressed: u64, error: &io::Error) {
    warn!(
        suppressed,
        "node {whom:016x} and this one do not accept each other's certificates ({error}): was the cluster's \
         CA replaced while this node was away? Then let it in again: `rookery cluster token` on a member, \
         `rookery cluster join` on this node"
    );
}

fn proven(
    shown: Option<&[rustls::pki_types::CertificateDer<'_>]>,
    ready: &Ready,
    side: Side,
) -> Option<Proven> {
    ready.roots.prove(shown?.first()?, side, UnixTime::now())
}

impl Connected for PeerStream {
    type ConnectInfo = Option<Caller>;

    fn connect_info(&self) -> Option<Caller> {
        self.caller
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.link.reader.register(cx.waker());
        if self.link.cut.load(Ordering::Acquire) {
            return Poll::Ready(Ok(()));
        }
        if let Some(unproven) = &mut self.unproven
            && unproven.ends.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Ok(()));
        }
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        if let Poll::Ready(Err(error)) = &read {
            self.note(error);
        }
        read
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
