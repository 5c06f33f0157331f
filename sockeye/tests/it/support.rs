//! A server that runs beside a test, and an observer that tells the test what it sees.

use std::net::SocketAddr;
use std::time::Duration;

use sockeye::shutdown::Summary;
use sockeye::stats::{AcceptFailed, Accepted, Closed, Observer, Opened, Refused};
use sockeye::{Addr, CloseReason, Handle, Server, Service};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Longer than anything here takes, shorter than a human's patience.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Fails the test if `future` takes longer than [`PATIENCE`].
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("did not happen in time")
}

/// Sends the text and waits until it has come back.
pub(crate) async fn echoes(stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin), text: &[u8]) {
    stream.write_all(text).await.expect("sent");
    let mut answer = vec![0; text.len()];
    soon(stream.read_exact(&mut answer))
        .await
        .expect("answered");
    assert_eq!(answer, text);
}

pub(crate) fn loopback() -> Server {
    Server::bind(([127, 0, 0, 1], 0)).expect("loopback can be bound")
}

/// A server on a task of its own.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) handle: Handle,
    pub(crate) events: mpsc::UnboundedReceiver<Event>,
    ended: JoinHandle<Summary>,
}

impl Running {
    pub(crate) fn start(server: Server, service: impl Service) -> Self {
        let (sender, events) = mpsc::unbounded_channel();
        let server = server.observer(Tell(sender));
        let Addr::Tcp(address) = server.addresses()[0] else {
            panic!("not a TCP server");
        };
        let handle = server.handle();
        let ended = tokio::spawn(async move { server.serve(service).await.expect("accepts") });
        Self {
            address,
            handle,
            events,
            ended,
        }
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        soon(TcpStream::connect(self.address))
            .await
            .expect("connects")
    }

    /// The close of the next connection to close.
    pub(crate) async fn next_close(&mut self) -> Close {
        loop {
            if let Event::Close(close) = self.next().await {
                return close;
            }
        }
    }

    pub(crate) async fn next(&mut self) -> Event {
        soon(self.events.recv()).await.expect("the server runs")
    }

    /// Waits until the server has ended.
    pub(crate) async fn ended(self) -> Summary {
        soon(self.ended).await.expect("did not panic")
    }

    /// Stops the server and waits until it has ended by itself.
    pub(crate) async fn stop(self) -> Summary {
        self.handle.stop();
        self.ended().await
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Event {
    Accept(u64),
    Refuse(u64, &'static str),
    Open(u64),
    Close(Close),
    AcceptError(i32),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Close {
    pub(crate) id: u64,
    pub(crate) reason: CloseReason,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) duration: Duration,
    pub(crate) has_tcp_info: bool,
    pub(crate) error: Option<String>,
    /// What the PROXY header declared.
    pub(crate) client: Option<Addr>,
}

struct Tell(mpsc::UnboundedSender<Event>);

impl Tell {
    fn tell(&self, event: Event) {
        // A test that has seen enough may be gone.
        let _ = self.0.send(event);
    }
}

impl Observer for Tell {
    fn accept(&self, event: &Accepted<'_>) {
        self.tell(Event::Accept(event.id));
    }

    fn refuse(&self, event: &Refused<'_>) {
        self.tell(Event::Refuse(event.id, event.reason.as_str()));
    }

    fn open(&self, event: &Opened<'_>) {
        self.tell(Event::Open(event.id));
    }

    fn close(&self, event: &Closed<'_>) {
        self.tell(Event::Close(Close {
            id: event.id,
            reason: event.reason,
            bytes_in: event.bytes_in,
            bytes_out: event.bytes_out,
            duration: event.duration,
            has_tcp_info: event.tcp_info.is_some(),
            error: event.error.map(ToString::to_string),
            client: event.client.cloned(),
        }));
    }

    fn accept_error(&self, event: &AcceptFailed<'_>) {
        self.tell(Event::AcceptError(event.error.raw_os_error().unwrap_or(0)));
    }

    fn wants_tcp_info(&self) -> bool {
        true
    }
}
