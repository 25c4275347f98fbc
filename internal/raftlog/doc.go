// Package raftlog keeps the log of Raft in segment files. It is a raft.LogStore that knows
// what it has acknowledged: it tells a torn write, which is an ordinary crash, from damage,
// which is not.
//
// # Files
//
// A directory has segment files and a few files next-N.tmp, which are to become the next
// segments. A segment has a header in a block of its own, and records from byte 4096 on: one
// for each entry, one behind the other. The mark (see [Mark]) lies where the caller wants it,
// best outside of the directory, so that it tells an earlier copy of it.
//
// Segments have a fixed length from the beginning: the file was written with zeros, or was a
// segment before, and is durable with its length before it gets its name. So an append
// changes no metadata of the file system. It is one pwrite and one fdatasync. The first
// segment has a sixteenth of the segment size, the one after a full one twice the size of
// that: a small log is a small file. When a segment is half full, a goroutine writes the
// file for the next one, in pieces that it syncs one by one; a segment that the front of the
// log does not need any more is kept for the same purpose, if it has the right size. An
// append that does not fit into the rest of a segment goes into the next one, which is as
// long as the append if need be.
//
// In memory there are four bytes for each entry, its place in the file. A record has at
// least 64 bytes, so this is at most a sixteenth of the files' length; a log of 100,000
// entries takes 400 KB. All else is read when it is asked for, and checked then.
//
// # Which records are valid
//
// The bytes behind the last record are zeros, or what an earlier use of the file has left,
// or what is left of an append that was torn. None of it may be taken for an entry, and
// nothing of it was ever erased. So a record is bound to where it is: the header has a
// salt of 64 random bits that is new with each use of a file, and the CRC32C of a record's
// head begins with a hash of this salt and the offset, and covers index, term, type, time, both
// lengths and the
// CRC32C of data and extensions. What an earlier use of the file has left has another salt.
// The sender of data does not know the salt, so no data can be made to look like a record.
//
// A record also says which place of how many it has in its append. There is one append at a
// time, and it begins after the one before was synced. That is how a torn append is told from
// damage: where an entry cannot be read,
//
//   - in any segment but the last one, it was acknowledged: the segment that follows was
//     begun later and says where this one ends. It is damaged.
//   - up to the entry that the mark has, it was acknowledged. It is damaged.
//   - if a valid head of a later append follows somewhere in the segment, this one was synced
//     before that began. It is damaged.
//   - otherwise the append to which it belongs was not acknowledged. The log ends before this
//     append, all of it.
//
// What remains is the last append, damaged after it was acknowledged, when a loss of power
// has also made the mark older. Nothing on one disk can tell that from a torn write.
//
// # Cuts
//
// Nothing is overwritten to cut the log. Each segment names the one before it, and its first
// index says where that ends:
//
//   - The end is cut by a new segment that begins at the cut. What the segment before has
//     from there on is not in the log any more, and nothing is appended to it: so it cannot
//     come back. Segments that the chain does not lead to are not in the log either.
//   - A torn append at the end is cut off in the same way when the log is opened, if there is
//     any trace of it (the tag of a record); its bytes stay where they are. Without a trace
//     there is nothing in the rest of the segment that could become a record.
//   - The log is emptied by a new segment that has none before it.
//   - The front is cut by the mark, which has the first entry.
//
// # Order of writes
//
// At each step of what follows the process may end, or the power:
//
//   - Append: records, fdatasync, mark (not synced), answer. The mark is never newer than the
//     log.
//   - New segment: zeros, fdatasync, sync of the directory (so that the name is that of this file);
//     header, fdatasync; rename; sync of the directory. With the rename the segment is there,
//     empty and whole.
//   - Cut of the end, or emptying: mark, synced; new segment; then segments that are cut off
//     are removed, in any order. Before the rename the log is as it was, and the mark asks for
//     less than it has. After it the cut is done.
//   - Cut of the front: mark, synced; then segments are removed. With the mark the cut is done.
//   - Reuse of a file: it is renamed to next-N.tmp, and the directory synced, before a byte of
//     it is changed; otherwise the old name could be that of another segment.
//   - Opening: everything is read and checked before anything is written. Then the last append
//     is written again as it is and synced, and so is the mark: what was read may be in the
//     memory of the system alone, because the process before ended before its sync, or because
//     its sync failed; after a failed sync Linux takes for written what is not. What [Open]
//     returns is durable.
//
// # Failures
//
// After a write or a sync that has failed the log takes no more writes ([Log.StoreLogs]).
// What was acknowledged before can still be read. A file that cannot be made for the next
// segment, on a full disk, is no such failure: nothing was written, the append returns the
// error, and the next one tries again. Entries never need space that is not there already, on
// file systems that overwrite in place.
//
// A disk is taken to write a sector of 512 bytes as a whole or not at all. What it does
// otherwise shows as a checksum that does not fit.
//
// Rejected: to overwrite the cut end with zeros (a loss of power leaves any part of it, and
// then a cut that was not finished looks like damage in the middle); to chain the checksums
// of records (a record of the same content as one that was cut off would still be valid); to
// keep a list of segments in a file of its own (one more thing to write, and to be lost).
//
// Files of the package: log.go has the options and the operations, open.go what a log is checked for,
// segment.go and record.go the format, ahead.go the files to come, mark.go the mark, fs.go,
// sync_linux.go and sync_other.go the file system.
//
// A [Log] owns one goroutine at times, which writes the next file and ends with Close.
package raftlog
