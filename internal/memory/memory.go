// Package memory says how much memory the process may take.
package memory

import (
	"bufio"
	"math"
	"os"
	"path"
	"strconv"
	"strings"
)

// Limit is how many bytes of memory the process may take: what its control group allows, on
// Linux, or what the machine has, whichever is less. ok is false where that cannot be told,
// as on other systems.
func Limit() (bytes int64, ok bool) { return limit(readFile) }

func readFile(name string) string {
	content, err := os.ReadFile(name)
	if err != nil {
		return ""
	}
	return string(content)
}

// limit is Limit, of the files that read returns; one that is not there is empty.
func limit(read func(name string) string) (bytes int64, ok bool) {
	least := int64(math.MaxInt64)
	for _, limit := range append(ofGroups(read), ofMachine(read("/proc/meminfo"))) {
		if limit > 0 {
			least = min(least, limit)
		}
	}
	return least, least != math.MaxInt64
}

// ofGroups are the limits of the control groups that the process is in, of both versions. A
// group is bound by those above it, too. In a container the root of the tree is mostly the
// container's own group, whatever its path is called.
func ofGroups(read func(string) string) (limits []int64) {
	lines := bufio.NewScanner(strings.NewReader(read("/proc/self/cgroup")))
	groups := map[string]string{"/sys/fs/cgroup": "memory.max", "/sys/fs/cgroup/memory": "memory.limit_in_bytes"}
	paths := map[string][]string{"/sys/fs/cgroup": {"/"}, "/sys/fs/cgroup/memory": {"/"}}
	for lines.Scan() {
		part := strings.SplitN(lines.Text(), ":", 3) // number, controllers, path
		if len(part) != 3 {
			continue
		}
		root := "/sys/fs/cgroup"
		switch {
		case part[1] == "":
		case strings.Contains(","+part[1]+",", ",memory,"):
			root = "/sys/fs/cgroup/memory"
		default:
			continue
		}
		for p := path.Clean("/" + part[2]); p != "/"; p = path.Dir(p) {
			paths[root] = append(paths[root], p)
		}
	}
	for root, file := range groups {
		for _, p := range paths[root] {
			n, err := strconv.ParseInt(strings.TrimSpace(read(path.Join(root, p, file))), 10, 64)
			if err == nil { // otherwise there is no such file, or it says "max"
				limits = append(limits, n)
			}
		}
	}
	return limits
}

// ofMachine is the memory of the machine, 0 if it is not known.
func ofMachine(meminfo string) int64 {
	for line := range strings.Lines(meminfo) {
		rest, ok := strings.CutPrefix(line, "MemTotal:")
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
		if err != nil || n > math.MaxInt64>>10 {
			return 0
		}
		return n << 10
	}
	return 0
}
