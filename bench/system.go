package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strings"
)

// system is one of the things that are compared.
type system struct {
	name  string            // as in -systems
	title string            // over its column
	lacks map[string]string // kind of workload → why it has no such thing
	// missing is why it cannot be measured; "" if it can.
	missing string
	// prepare builds what start needs, once; nil: nothing.
	prepare func(ctx context.Context, s *system, dir string) error
	// start starts it on loopback with its data in dir, and returns when it serves.
	start func(ctx context.Context, s *system, dir string) (cluster, error)

	program string // set by prepare
}

// cluster is a system that runs.
type cluster interface {
	pids() []int
	// sessions returns new ones, which close ends.
	sessions(ctx context.Context, n int) ([]session, error)
	close() error
}

// baseline is the system to which the ratios are.
const baseline = "etcd"

func systems() []*system {
	redis, version, why := redisProgram()
	noStale := "reads are of one node"
	return []*system{
		{name: "locknode", title: "Locknode", prepare: buildLocknode, start: startLocknode},
		{name: baseline, title: "etcd " + etcdVersion(), prepare: buildEtcd, start: startEtcd},
		{name: "redis-fsync", title: "Redis " + version + ", one node, fsync", program: redis, missing: why,
			start: startRedis("--save", "", "--appendonly", "yes", "--appendfsync", "always"),
			lacks: map[string]string{"stale": noStale}},
		{name: "redis", title: "Redis " + version + ", one node, no disk", program: redis, missing: why,
			start: startRedis("--save", "", "--appendonly", "no"),
			lacks: map[string]string{"stale": noStale}},
		{name: "redlock", title: "Redlock, 3 × Redis " + version, program: redis, missing: why, start: startRedlock,
			lacks: map[string]string{"read": "redsync has no read", "stale": "redsync has no read"}},
		{name: "zookeeper", title: "ZooKeeper", missing: "there is no driver for it in this program"},
		{name: "consul", title: "Consul", missing: "there is no driver for it in this program"},
	}
}

// redisProgram finds redis-server, or says why there is none.
func redisProgram() (path, version, missing string) {
	path, err := exec.LookPath("redis-server")
	if err != nil {
		return "", "", "redis-server is not installed"
	}
	out, err := exec.Command(path, "--version").Output()
	v := regexp.MustCompile(`v=(\S+)`).FindSubmatch(out)
	if err != nil || v == nil {
		return "", "", fmt.Sprintf("redis-server --version: %v, %q", err, out)
	}
	return path, string(v[1]), ""
}

// pickSystems are those in the list, or all that can be measured. Skipped has a line for each other.
func pickSystems(all []*system, list string) (picked []*system, skipped []string, err error) {
	named := split(list)
	for _, name := range named {
		if !slices.ContainsFunc(all, func(s *system) bool { return s.name == name }) {
			return nil, nil, fmt.Errorf("-systems: names %q, must be of %s", name, joinNames(all, func(s *system) string { return s.name }))
		}
	}
	for _, s := range all {
		switch wanted := slices.Contains(named, s.name); {
		case len(named) > 0 && !wanted:
		case s.missing == "":
			picked = append(picked, s)
		case wanted:
			return nil, nil, fmt.Errorf("-systems: names %s, which cannot be measured here: %s", s.name, s.missing)
		default:
			skipped = append(skipped, fmt.Sprintf("%s is skipped: %s", s.name, s.missing))
		}
	}
	return picked, skipped, nil
}

// pickWorkloads are those in the list, by name or kind, or all.
func pickWorkloads(all []workload, list string) ([]workload, error) {
	named := split(list)
	if len(named) == 0 {
		return all, nil
	}
	var picked []workload
	for _, w := range all {
		if slices.Contains(named, w.name) || slices.Contains(named, w.kind) {
			picked = append(picked, w)
		}
	}
	for _, name := range named {
		if !slices.ContainsFunc(picked, func(w workload) bool { return w.name == name || w.kind == name }) {
			return nil, fmt.Errorf("-workloads: names %q, must be of %s", name, joinNames(all, func(w workload) string { return w.name }))
		}
	}
	return picked, nil
}

// split reads a list with commas; "all" and "" are empty ones.
func split(list string) []string {
	if list == "" || list == "all" {
		return nil
	}
	return strings.Split(list, ",")
}

func joinNames[T any](all []T, name func(T) string) string {
	var names []string
	for _, v := range all {
		names = append(names, name(v))
	}
	return strings.Join(names, ", ")
}

// startSafely starts the system, and once more if it ended at once: another program may have taken a port.
func startSafely(ctx context.Context, s *system, dir func() (string, error)) (cluster, error) {
	var errs []error
	for range 3 {
		d, err := dir()
		if err != nil {
			return nil, err
		}
		c, err := s.start(ctx, s, d)
		if err == nil {
			return c, nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, fmt.Errorf("start %s: %w", s.name, errors.Join(errs...))
}
