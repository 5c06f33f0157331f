//! `serve script`: each connection follows a script.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::anyhow;
use sockeye::{Conn, Service};

use crate::exit::Failure;
use crate::script::{Cut, Last, Script, run};

/// The script that connections follow from their beginning to their end, and that can be replaced for later ones.
#[derive(Clone)]
pub(super) struct Scripted {
    path: PathBuf,
    script: Arc<Mutex<Arc<Script>>>,
}

impl Scripted {
    /// Reads the script.
    pub(super) fn load(path: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = path else {
            return Err(Failure::usage(anyhow!("which script?"))
                .with_hint("name its file: sockeye serve script smtp.script"));
        };
        Ok(Self {
            path: path.to_owned(),
            script: Arc::new(Mutex::new(Arc::new(Script::load(path)?))),
        })
    }

    /// Reads the script anew.
    pub(super) fn read(&self) -> Result<Script, Failure> {
        Script::load(&self.path)
    }

    /// Has later connections follow this one, and says whether it is another.
    pub(super) fn replace(&self, script: Script) -> bool {
        let mut current = self.current();
        let changed = **current != script;
        *current = Arc::new(script);
        changed
    }

    fn current(&self) -> MutexGuard<'_, Arc<Script>> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Service for Scripted {
    async fn serve(&self, mut conn: Conn) -> io::Result<()> {
        let script = Arc::clone(&self.current());
        match run(&script, &mut conn, Cut::Fails, |_| ()).await {
            Ok(Last::Close) => Ok(()),
            Ok(Last::Reset) => {
                conn.abort();
                Ok(())
            }
            Err(failed) => Err(io::Error::other(failed.to_string())),
        }
    }
}
