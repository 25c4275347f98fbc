package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// looker finds out who has dialled, in /proc.
type looker struct {
	pids func() map[int]string // process → its name

	mu    sync.Mutex        // held while /proc is read, which takes its time
	known map[string]string // connection, as /proc has it → who made it
}

// dialler returns a function that says which process has made a connection; ""
// is somebody else.
func dialler(pids func() map[int]string) func(net.Conn) string {
	l := &looker{pids: pids, known: map[string]string{}}
	return l.who
}

// who reads /proc; callers that wait for a read share the next one.
func (l *looker) who(conn net.Conn) string {
	key := procAddress(conn.RemoteAddr()) + " " + procAddress(conn.LocalAddr())
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.known[key]; !ok {
		l.look()
	}
	name := l.known[key]
	delete(l.known, key) // the same ports may be used again by another
	return name
}

// procAddress is an address as /proc/net/tcp has it.
func procAddress(a net.Addr) string {
	tcp, ok := a.(*net.TCPAddr)
	if !ok || tcp.IP.To4() == nil {
		return ""
	}
	ip := tcp.IP.To4()
	return fmt.Sprintf("%02X%02X%02X%02X:%04X", ip[3], ip[2], ip[1], ip[0], tcp.Port)
}

// look finds out who has made all connections that there are. The connections
// are read before their owners, so that every one of them has its owner.
func (l *looker) look() {
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return
	}
	owners := map[string]string{} // "socket:[inode]" → name
	for pid, name := range l.pids() {
		fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		if err != nil {
			continue
		}
		for _, fd := range fds {
			if to, err := os.Readlink(fd); err == nil {
				owners[to] = name
			}
		}
	}
	clear(l.known)
	for lines := bufio.NewScanner(bytes.NewReader(table)); lines.Scan(); {
		const local, remote, inode = 1, 2, 9
		if f := strings.Fields(lines.Text()); len(f) > inode {
			l.known[f[local]+" "+f[remote]] = owners["socket:["+f[inode]+"]"]
		}
	}
}
