//! A chat: every line goes to every other client. `cargo run --example line_chat`, then `nc 127.0.0.1 7000` twice.
//!
//! It shows a service with shared state, messages on a stream of bytes, and a bound on what a slow reader can cost:
//! who is more than 64 lines behind misses some.

use std::error::Error;
use std::io;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use sockeye::frame::{FrameError, Lines};
use sockeye::{Conn, Server, service_fn};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_util::codec::Framed;

type Room = broadcast::Sender<(u64, Bytes)>;

async fn chat(conn: Conn, room: Room) -> Result<(), FrameError> {
    let id = conn.id();
    let mut said = room.subscribe();
    let mut lines = Framed::new(conn, Lines::new(1_000));
    lines.send(format!("you are {id}")).await?;
    loop {
        tokio::select! {
            line = lines.next() => match line {
                // Nobody else may be there to hear it.
                Some(line) => drop(room.send((id, line?))),
                None => return Ok(()),
            },
            heard = said.recv() => match heard {
                Ok((from, line)) if from != id => {
                    let line = String::from_utf8_lossy(&line).into_owned();
                    lines.send(format!("{from}: {line}")).await?;
                }
                Ok(_) => {}
                Err(RecvError::Lagged(missed)) => lines.send(format!("({missed} lines missed)")).await?,
                Err(RecvError::Closed) => return Ok(()),
            },
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let room: Room = broadcast::channel(64).0;
    let service = service_fn(move |conn| {
        let room = room.clone();
        async move { chat(conn, room).await.map_err(io::Error::other) }
    });
    let server = Server::bind(([127, 0, 0, 1], 7000))?;
    eprintln!("listening on {}", server.addresses()[0]);
    server.serve(service).await?;
    Ok(())
}
