//! Buffers the kernel chooses from when bytes arrive, so that an idle connection holds none.

use io_uring::Submitter;
use io_uring::types::BufRingEntry;
use std::alloc::{self, Layout};
use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

/// Enough for a whole 16 KiB message in one, and for 1,000 connections heard in one turn.
const BUFFERS: u16 = 1024;
const SIZE: usize = 16 * 1024;
/// One cache line more than the size. Buffers that all begin on a page boundary begin in the same few cache sets, and
/// small messages, which touch only the beginning, would push one another out of a cache that is otherwise empty.
const STRIDE: usize = SIZE + 64;
/// The page size is what the kernel wants the ring itself aligned to.
const PAGE: usize = 4096;

/// A ring of entries shared with the kernel. It lives as long as the process, so nothing here is ever freed.
#[derive(Debug)]
pub struct BufferRing {
    entries: *mut BufRingEntry,
    memory: *mut u8,
    tail: u16,
    /// How many the kernel has filled and not yet been given back.
    in_use: u16,
}

impl BufferRing {
    /// The group that receives name to use these buffers.
    pub const GROUP: u16 = 0;

    pub fn register(submitter: &Submitter<'_>) -> io::Result<Self> {
        let size = usize::from(BUFFERS) * size_of::<BufRingEntry>();
        let layout = Layout::from_size_align(size, PAGE).map_err(io::Error::other)?;
        // SAFETY: the layout is not empty.
        let entries = unsafe { alloc::alloc_zeroed(layout) }.cast::<BufRingEntry>();
        if entries.is_null() {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        // SAFETY: the entries are aligned, as many as said, and never freed.
        unsafe {
            submitter.register_buf_ring_with_flags(entries as u64, BUFFERS, Self::GROUP, 0)?;
        }
        let memory = vec![0; usize::from(BUFFERS) * STRIDE].leak().as_mut_ptr();
        let mut ring = Self {
            entries,
            memory,
            tail: 0,
            in_use: BUFFERS,
        };
        for id in 0..BUFFERS {
            ring.give_back(id);
        }
        Ok(ring)
    }

    /// Where a buffer begins. Only the kernel reads and writes there; this process never looks at the bytes.
    #[must_use]
    pub fn address(&self, id: u16) -> *const u8 {
        assert!(id < BUFFERS, "the kernel names only buffers it was given");
        self.memory.wrapping_add(usize::from(id) * STRIDE)
    }

    /// Notes that a completion has named a buffer.
    pub fn taken(&mut self) {
        self.in_use += 1;
    }

    #[must_use]
    pub fn has_free(&self) -> bool {
        self.in_use < BUFFERS
    }

    /// Lets the kernel use a buffer again.
    pub fn give_back(&mut self, id: u16) {
        let address = self.address(id) as u64;
        let place = usize::from(self.tail % BUFFERS);
        // SAFETY: the place is inside the ring, and the kernel does not read it before the tail has passed it. The
        // tail shares the first entry with the fields written here, and overlaps none of them.
        let tail = unsafe {
            let entry = self.entries.add(place);
            (*entry).set_addr(address);
            (*entry).set_len(SIZE as u32);
            (*entry).set_bid(id);
            AtomicU16::from_ptr(BufRingEntry::tail(self.entries).cast_mut())
        };
        self.tail = self.tail.wrapping_add(1);
        self.in_use -= 1;
        // Published after the entry: the kernel reads the tail first.
        tail.store(self.tail, Ordering::Release);
    }
}
