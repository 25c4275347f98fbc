package secure

import (
	"bytes"
	"net"
	"runtime"
	"testing"

	"github.com/locknode/locknode/internal/certs"
	"github.com/locknode/locknode/internal/proof/pki"
)

// BenchmarkHandshakeMemory prints what handshakes of strangers take that have sent all but the
// end of what they may: SECURITY.md has the result.
func BenchmarkHandshakeMemory(b *testing.B) {
	a, err := pki.New(b.TempDir(), "bank")
	if err != nil {
		b.Fatal(err)
	}
	cert, key, err := a.Node("n1")
	if err != nil {
		b.Fatal(err)
	}
	source, err := certs.Open(certs.Files{CA: a.CAFile(), Cert: cert, Key: key}, certs.Options{Node: true, Cluster: "bank", ID: "n1"})
	if err != nil {
		b.Fatal(err)
	}
	p := NewPort(PortOptions{Mode: Required, Config: source.ServeClients(false)})
	for b.Loop() {
		before := heap()
		var open []net.Conn
		for range maxHandshakes {
			ours, theirs := net.Pipe()
			c := p.Server(ours)
			go func() { _ = c.Handshake() }()
			first := append([]byte{RecordHandshake, 3, 1, 0x40, 0}, bytes.Repeat([]byte{0}, 1<<14)...)
			copy(first[5:], []byte{1, 0, 0xff, 0xfc}) // a hello of 64 KiB less what its head takes
			next := append([]byte{RecordHandshake, 3, 1, 0x40, 0}, bytes.Repeat([]byte{0}, 1<<14)...)
			for _, record := range [][]byte{first, next, next, next[:len(next)-64]} {
				if _, err := theirs.Write(record); err != nil {
					b.Fatal(err)
				}
			}
			open = append(open, ours, theirs)
		}
		b.ReportMetric(float64(heap()-before)/(1<<20), "MiB")
		for _, c := range open {
			_ = c.Close()
		}
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}
