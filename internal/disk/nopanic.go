package disk

import (
	"runtime"
	"strings"
)

const raftPackage = "github.com/hashicorp/raft."

// raftPanicsIn are the functions of raft that panic when a store answers them
// with an error. All else in raft handles the error.
var raftPanicsIn = map[string]bool{
	raftPackage + "(*Raft).setCurrentTerm": true,
	raftPackage + "(*Raft).processLogs":    true,
	raftPackage + "(*Raft).liveBootstrap":  true,
}

// endInsteadOfPanic is called with an error that a store is about to return. If
// raft's main goroutine would panic on it, that goroutine ends here, running
// raft's deferred clean-up: a leader's callers are answered that leadership was
// lost, and Shutdown finds its goroutines gone. In every other case, also when
// the caller is somebody else's goroutine inside raft.NewRaft, err is returned.
//
// Rejected: pretending that the write succeeded, which would let raft go on as
// if its term were saved; and parking the goroutine, which would make every
// later Shutdown run into its deadline.
//
// It looks at the stack, which costs microseconds and happens once, after the
// store has failed.
func endInsteadOfPanic(err error) error {
	if err != nil && onRaftMainAndWouldPanic() {
		runtime.Goexit()
	}
	return err
}

func onRaftMainAndWouldPanic() bool {
	pcs := make([]uintptr, 64)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	innermost := ""
	for {
		f, more := frames.Next()
		if strings.HasPrefix(f.Function, raftPackage) && !strings.HasPrefix(f.Function, raftPackage+"(*LogCache)") {
			if innermost == "" {
				innermost = f.Function
			}
			if f.Function == raftPackage+"(*Raft).run" {
				return raftPanicsIn[innermost]
			}
		}
		if !more {
			return false
		}
	}
}
