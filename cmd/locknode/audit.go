package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"os"
	"runtime"
	"sync"

	"github.com/DeRuina/timberjack"

	"github.com/locknode/locknode/node"
)

// The audit of a node: which settings it has, and where its lines go. And the profiles of
// the process.

// auditConfig are the settings of the audit.
type auditConfig struct {
	file           string
	stdout, grants bool
	onError        string
	maxSize        int64
	backups        int
}

const mebibyte = 1 << 20

func auditSettings() []*setting {
	file := text("audit.file", "file to which the audit is written: who has done what with force or admin, one JSON object on each line; opened again at SIGHUP", "",
		func(c *serveConfig) *string { return &c.audit.file })
	file.kind = "path"
	return []*setting{
		file,
		truth("audit.stdout", "write the audit to standard output", func(c *serveConfig) *bool { return &c.audit.stdout }),
		truth("audit.grants", "record each grant and its end as well", func(c *serveConfig) *bool { return &c.audit.grants }),
		text("audit.on_error", "what happens to operations with force or admin that cannot be recorded: continue or refuse", "continue",
			func(c *serveConfig) *string { return &c.audit.onError }, oneOf("continue", "refuse")),
		{key: "audit.max_size", kind: "size", usage: "size at which audit.file is set aside under a name with the time, and a new one begun", def: "100MiB",
			set: func(c *serveConfig, values []string) (err error) {
				c.audit.maxSize, err = parseBytes(values[0])
				if err != nil || c.audit.maxSize < mebibyte || c.audit.maxSize > 1<<40 || c.audit.maxSize%mebibyte != 0 {
					return errors.New("must be whole mebibytes from 1MiB to 1TiB, such as 100MiB")
				}
				return nil
			}},
		number("audit.backups", "how many files that were set aside are kept; 0: all", 10, 0, 10_000,
			func(c *serveConfig) *int { return &c.audit.backups }),
	}
}

// quotaSettings are what one caller may take of this node. They are settings of the node: what
// it may take of the table is limits.*.
func quotaSettings() []*setting {
	return []*setting{
		number("quota.connections", "connections with something under way, of one identity, or of one address where there is none; 0: no bound of its own", 0, 0, 1_000_000,
			func(c *serveConfig) *int { return &c.node.Quota.Connections }),
		number("quota.streams", "calls, streams and HTTP requests under way, likewise; twice as many of those that free something; 0: no bound of its own", 0, 0, 10_000_000,
			func(c *serveConfig) *int { return &c.node.Quota.Streams }),
		number("quota.ops_per_second", "operations a second, likewise, besides those that free something or keep it alive; 0: no bound", 0, 0, 10_000_000,
			func(c *serveConfig) *int { return &c.node.Quota.OpsPerSecond }),
		{key: "quota.unsent_bytes", kind: "size", usage: "answers that are not read, likewise: beyond it reads are refused; 0: no bound of its own", def: "0",
			set: func(c *serveConfig, values []string) error {
				n, err := parseBytes(values[0])
				if err == nil && n > 1<<40 {
					err = errors.New("must be at most 1TiB")
				}
				c.node.Quota.UnsentBytes = n
				return err
			}},
	}
}

// debugSettings are for those who look into a running process.
func debugSettings() []*setting {
	return []*setting{truth("debug.pprof", "serve profiles of the process under /debug/pprof/ over HTTP; needs the right admin",
		func(c *serveConfig) *bool { return &c.pprof })}
}

// auditFault returns what is wrong with the settings of the audit together.
func auditFault(c serveConfig) error {
	if c.audit.file != "" || c.audit.stdout || !c.audit.grants && c.audit.onError != "refuse" {
		return nil
	}
	return &fault{source: "audit.grants, audit.on_error", allowed: errors.New(
		"have no effect without audit.file or audit.stdout: set one of them")}
}

// rotating is a file of lines that are never changed. At a size it is set aside and a new one
// begun. Its methods are safe for concurrent use.
type rotating struct {
	path    string
	maxSize int64
	backups int

	mu sync.Mutex // guards to
	to *timberjack.Logger
}

// openRotating opens a file, or makes one that only this user can read.
func openRotating(path string, maxSize int64, backups int, log *slog.Logger) (*rotating, error) {
	r := &rotating{path: path, maxSize: maxSize, backups: backups}
	info, err := r.make()
	if err != nil {
		return nil, fmt.Errorf("audit.file: is %q, must be a file that this user can write: %w", path, err)
	}
	if info.Mode()&0o007 != 0 && runtime.GOOS != "windows" {
		log.Warn("the audit can be read or written by every user of this machine: chmod o-rwx it", "file", path, "mode", info.Mode().String())
	}
	return r, nil
}

// make makes the file if there is none, and begins to write at its end. A file that is there
// keeps its rights, which those after it get as well: somebody may have let a group read it.
func (r *rotating) make() (os.FileInfo, error) {
	f, err := os.OpenFile(r.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is no regular file; for standard output there is audit.stdout")
	}
	r.to = &timberjack.Logger{Filename: r.path, MaxSize: int(r.maxSize / mebibyte), MaxBackups: r.backups, Compression: "none"}
	return info, nil
}

// Write implements [io.Writer].
func (r *rotating) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.to.Write(b)
}

// reopen begins to write to the file that has the path now: another program may have renamed
// the one before. After an error everything is as before.
func (r *rotating) reopen() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.to
	if _, err := r.make(); err != nil {
		return fmt.Errorf("open %s again: %w", r.path, err)
	}
	return before.Close()
}

// Close closes the file.
func (r *rotating) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.to.Close()
}

// openAudit returns where the audit goes; file is nil if it goes to no file.
func (a *app) openAudit(c auditConfig, log *slog.Logger) (to node.Audit, file *rotating, err error) {
	var writers []io.Writer
	if c.file != "" {
		if file, err = openRotating(c.file, c.maxSize, c.backups, log); err != nil {
			return to, nil, err
		}
		writers = append(writers, file)
	}
	if c.stdout {
		writers = append(writers, a.stdout)
	}
	switch len(writers) {
	case 0:
		return to, nil, nil
	case 1:
		to.To = writers[0]
	default:
		to.To = io.MultiWriter(writers...)
	}
	to.Grants, to.Refuse = c.grants, c.onError == "refuse"
	return to, file, nil
}

// profiles answers below /debug/pprof/. The command line of the process is left out: it says
// where the node's files are.
func profiles() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}
