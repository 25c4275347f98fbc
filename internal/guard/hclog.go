package guard

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"strings"

	"github.com/hashicorp/go-hclog"
)

// RaftLogger lets raft and its stores log through l. Their levels are lowered
// by one (error becomes warn, and so on): raft logs each retry as an error.
func RaftLogger(l *slog.Logger) hclog.Logger { return &raftLogger{slog: l} }

type raftLogger struct {
	slog *slog.Logger
	name string
	args []any
}

var slogLevel = map[hclog.Level]slog.Level{
	hclog.Error: slog.LevelWarn,
	hclog.Warn:  slog.LevelInfo,
	hclog.Info:  slog.LevelDebug,
	hclog.Debug: slog.LevelDebug - 4,
	hclog.Trace: slog.LevelDebug - 8,
}

func (r *raftLogger) Log(level hclog.Level, msg string, args ...any) {
	to, ok := slogLevel[level]
	if !ok {
		to = slog.LevelDebug
	}
	if !r.slog.Enabled(context.Background(), to) {
		return
	}
	r.slog.Log(context.Background(), to, msg, snakeArgs(args)...)
}

// snakeArgs renames keys as the rest of the program writes them and resolves
// hclog's own value types.
func snakeArgs(args []any) []any {
	out := make([]any, 0, len(args))
	for i := 0; i+1 < len(args); i += 2 {
		key := strings.ReplaceAll(fmt.Sprint(args[i]), "-", "_")
		if key == "error" {
			key = "err"
		}
		val := args[i+1]
		if f, ok := val.(hclog.Format); ok && len(f) > 0 {
			if layout, ok := f[0].(string); ok {
				val = fmt.Sprintf(layout, f[1:]...)
			}
		}
		out = append(out, key, val)
	}
	return out
}

func (r *raftLogger) Trace(msg string, args ...any) { r.Log(hclog.Trace, msg, args...) }
func (r *raftLogger) Debug(msg string, args ...any) { r.Log(hclog.Debug, msg, args...) }
func (r *raftLogger) Info(msg string, args ...any)  { r.Log(hclog.Info, msg, args...) }
func (r *raftLogger) Warn(msg string, args ...any)  { r.Log(hclog.Warn, msg, args...) }
func (r *raftLogger) Error(msg string, args ...any) { r.Log(hclog.Error, msg, args...) }

func (r *raftLogger) enabled(level hclog.Level) bool {
	return r.slog.Enabled(context.Background(), slogLevel[level])
}

func (r *raftLogger) IsTrace() bool { return r.enabled(hclog.Trace) }
func (r *raftLogger) IsDebug() bool { return r.enabled(hclog.Debug) }
func (r *raftLogger) IsInfo() bool  { return r.enabled(hclog.Info) }
func (r *raftLogger) IsWarn() bool  { return r.enabled(hclog.Warn) }
func (r *raftLogger) IsError() bool { return r.enabled(hclog.Error) }

func (r *raftLogger) ImpliedArgs() []any { return r.args }

func (r *raftLogger) With(args ...any) hclog.Logger {
	return &raftLogger{slog: r.slog.With(snakeArgs(args)...), name: r.name, args: append(r.args[:len(r.args):len(r.args)], args...)}
}

func (r *raftLogger) Name() string { return r.name }

func (r *raftLogger) Named(name string) hclog.Logger {
	return &raftLogger{slog: r.slog, name: strings.TrimPrefix(r.name+"."+name, "."), args: r.args}
}

func (r *raftLogger) ResetNamed(name string) hclog.Logger {
	return &raftLogger{slog: r.slog, name: name, args: r.args}
}

// SetLevel does nothing: the level is the slog handler's.
func (r *raftLogger) SetLevel(hclog.Level) {}

func (r *raftLogger) GetLevel() hclog.Level {
	for _, level := range []hclog.Level{hclog.Trace, hclog.Debug, hclog.Info, hclog.Warn, hclog.Error} {
		if r.enabled(level) {
			return level
		}
	}
	return hclog.Off
}

func (r *raftLogger) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return slog.NewLogLogger(r.slog.Handler(), slog.LevelDebug)
}

func (r *raftLogger) StandardWriter(o *hclog.StandardLoggerOptions) io.Writer {
	return r.StandardLogger(o).Writer()
}
