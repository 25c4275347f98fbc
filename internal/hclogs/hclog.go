package hclogs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// RaftLogger lets raft and its stores log through l. Their levels are lowered
// by one (error becomes warn, and so on): raft logs each retry as an error.
func RaftLogger(l *slog.Logger) hclog.Logger {
	// The logger itself writes nothing; its sink gets everything.
	r := hclog.NewInterceptLogger(&hclog.LoggerOptions{Level: hclog.Off, Output: io.Discard})
	r.RegisterSink(slogSink{l})
	return r
}

type slogSink struct{ slog *slog.Logger }

var slogLevel = map[hclog.Level]slog.Level{
	hclog.Error: slog.LevelWarn,
	hclog.Warn:  slog.LevelInfo,
	hclog.Info:  slog.LevelDebug,
	hclog.Debug: slog.LevelDebug - 4,
	hclog.Trace: slog.LevelDebug - 8,
}

// errHungUp is what EOF means to people.
var errHungUp = errors.New("the other end closed the connection")

// Accept takes one message. Keys are renamed as the rest of the program writes
// them, and hclog's own value types are resolved.
func (s slogSink) Accept(_ string, level hclog.Level, msg string, args ...any) {
	to, ok := slogLevel[level]
	if ok && endsConnection(args) {
		to = slog.LevelDebug
	}
	if !ok || !s.slog.Enabled(context.Background(), to) {
		return
	}
	attrs := make([]any, 0, len(args))
	for i := 0; i+1 < len(args); i += 2 {
		key := strings.NewReplacer("-", "_", " ", "_").Replace(fmt.Sprint(args[i]))
		if key == "error" {
			key = "err"
		}
		val := args[i+1]
		switch v := val.(type) {
		case hclog.Format:
			if len(v) > 0 {
				if layout, ok := v[0].(string); ok {
					val = fmt.Sprintf(layout, v[1:]...)
				}
			}
		case raft.Server:
			val = string(v.ID)
		case error:
			if errors.Is(v, io.EOF) {
				val = errHungUp
			}
		}
		attrs = append(attrs, key, val)
	}
	s.slog.Log(context.Background(), to, msg, attrs...)
}

// endsConnection reports whether a line is only about a connection that this end has
// closed, as every stop does.
func endsConnection(args []any) bool {
	for _, arg := range args {
		if err, ok := arg.(error); ok && errors.Is(err, net.ErrClosed) {
			return true
		}
	}
	return false
}
