//nolint:revive // the methods of nobody do what those of Observer say
package server

import (
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// Road is the label in metrics for the path on which an operation came.
type Road string

// The roads.
const (
	RoadStream Road = "stream"
	RoadUnary  Road = "unary" // batches too
	RoadHTTP   Road = "http"
)

// Observer counts. Its methods are called from many goroutines and must not block.
type Observer interface {
	// Answered is called for every operation that was answered. kind is the name of the
	// operation's field in locknode.proto. took includes the time in a queue.
	Answered(road Road, kind string, code apiv1.Code, took time.Duration)
	// Connections and Streams are called with +1 when one begins and -1 when it ends.
	// listener is "grpc" or "http".
	Connections(listener string, delta int)
	Streams(delta int)
	// Refused is called for every connection that is closed because of a limit.
	Refused(listener string)
	// Cut is called for every stream that is cut because its client does not read, and
	// for every connection that is cut because it takes memory from the others.
	Cut()
	// Cancelled is called for every acquire without a session whose caller has gone away.
	Cancelled()
	// Denied is called for everything that the caller has no right to. enforced is false if it
	// was done all the same.
	Denied(code apiv1.Code, enforced bool)
	// OverQuota is called for everything that is refused because a quota of its caller is
	// used up: "connections", "streams", "ops_per_second" or "unsent_bytes".
	OverQuota(quota string)
}

// nobody is the Observer of a Config without one.
type nobody struct{}

func (nobody) Answered(Road, string, apiv1.Code, time.Duration) {}
func (nobody) Connections(string, int)                          {}
func (nobody) Streams(int)                                      {}
func (nobody) Refused(string)                                   {}
func (nobody) Cut()                                             {}
func (nobody) Cancelled()                                       {}
func (nobody) Denied(apiv1.Code, bool)                          {}
func (nobody) OverQuota(string)                                 {}
