//nolint:revive // the methods of nobody do what those of Observer say
package server

import (
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// Road is the way an operation came in.
type Road string

// The roads.
const (
	RoadStream Road = "stream"
	RoadUnary  Road = "unary" // batches too
	RoadHTTP   Road = "http"
)

// Observer counts. Its methods are called by many goroutines and must not block.
type Observer interface {
	// Answered is told of every operation that the server has an answer for.
	// kind is the name of the operation's field in locknode.proto. took includes
	// the time in line.
	Answered(road Road, kind string, code apiv1.Code, took time.Duration)
	// Connections and Streams are told +1 and -1 as they come and go; listener
	// is "grpc" or "http".
	Connections(listener string, delta int)
	Streams(delta int)
	// Refused is told of every connection over a limit.
	Refused(listener string)
	// Cut is told of every stream that was cut because it did not read.
	Cut()
	// Cancelled is told of every acquire whose caller went away.
	Cancelled()
}

// nobody is the Observer of a Config without one.
type nobody struct{}

func (nobody) Answered(Road, string, apiv1.Code, time.Duration) {}
func (nobody) Connections(string, int)                          {}
func (nobody) Streams(int)                                      {}
func (nobody) Refused(string)                                   {}
func (nobody) Cut()                                             {}
func (nobody) Cancelled()                                       {}
