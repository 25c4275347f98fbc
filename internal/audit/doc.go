// Package audit writes down who has done what: one JSON object on a line for each operation
// that needs the right force or admin, each denial, each change of the cluster's members and
// of a node's life, and, if that is wanted, each grant and its end.
//
// An operation is recorded by the node at which it entered the cluster, because that node
// knows who called: the node that it is forwarded to takes the caller's word from a node and
// records nothing. What happens in the table is recorded by the leader (package node).
//
// A [Log] has one goroutine, which writes. Everything else puts records into a queue of
// bounded length and waits for nothing: what does not fit is dropped, counted, and said in
// the log and in the next line that can be written. With [Options.Refuse] an operation is
// begun only once a line that says so has been written, so that nothing is done of which
// there is no trace. A line counts as written once the writer has taken it: it survives the
// end of the process, and not the loss of power of a disk that has not stored it yet.
//
// A record has no secrets: no access tokens, no session IDs (only their hashes), no values of
// locks.
//
// Files:
//   - record.go: what is in a line? log.go: how does it get written, and what if not?
//   - calls.go: which operations and calls of the own program of a node are recorded, and how?
package audit
