//! The allocator: jemalloc. Threads do not contend for it as for the system's, and what was freed is given back instead of
//! being kept in pieces. How many arenas and how soon is said in `.cargo/config.toml`, which it is built with. It has no
//! thread of its own: the monitor forks, and must be alone for that.

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;
