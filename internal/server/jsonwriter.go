package server

import (
	"bytes"
	"encoding/json"
	"net/http"
	"runtime"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/document"
	"github.com/locknode/locknode/internal/quote"
)

// turns limits what takes long to half of the processors at a time. Without it heartbeats
// and keep-alives would wait for a thousand goroutines that all make long answers.
type turns chan struct{}

func newTurns() turns { return make(turns, max(1, runtime.GOMAXPROCS(0)/2)) }

// take waits for a turn and runs f, which must not wait for anything.
func (t turns) take(f func()) {
	t <- struct{}{}
	defer func() { <-t }()
	f()
}

// shortPiece is how many bytes of a holder are encoded without waiting for a turn.
const shortPiece = 512

// jsonWriter encodes and writes a long document piece by piece: JSON makes some values six
// times as long, and while a client reads slowly memory holds one piece of that, not all.
type jsonWriter struct {
	http.ResponseWriter
	turns turns
	err   error // the client has gone away, or does not read: the rest is not written
}

func (s *Server) newJSONWriter(w http.ResponseWriter) *jsonWriter {
	beginAnswer(w, http.StatusOK, "application/json")
	return &jsonWriter{ResponseWriter: w, turns: s.turns}
}

// hole returns where the elements of an empty array go. What it searches for is in no
// string of the JSON, where its quotes would be escaped.
func hole(encoded []byte, field string) int {
	at := []byte(`"` + field + `":[`)
	return bytes.Index(encoded, at) + len(at)
}

// page writes v with these locks.
func (j *jsonWriter) page(v document.Page, locks []*apiv1.Lock) {
	frame := j.encode(v)
	at := hole(frame, "locks")
	j.write(frame[:at])
	for i, l := range locks {
		if i > 0 {
			j.write([]byte(","))
		}
		j.lock(lockDocument(l), l.GetHolders())
	}
	j.write(frame[at:])
}

// lock writes v with these holders.
func (j *jsonWriter) lock(v document.Lock, holders []*apiv1.Holder) {
	frame := j.encode(v)
	at := hole(frame, "holders")
	j.write(frame[:at])
	for i := range holders {
		if i > 0 {
			j.write([]byte(","))
		}
		if j.err == nil {
			var piece []byte
			encode := func() { piece = j.encode(holderDocuments(holders[i:i+1], false)[0]) }
			if h := holders[i]; len(h.GetValue())+len(h.GetLabels()) < shortPiece {
				encode()
			} else {
				j.turns.take(encode)
			}
			j.write(piece)
		}
	}
	j.write(frame[at:])
}

func (j *jsonWriter) encode(v any) []byte {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil && j.err == nil { // a bug: every document can be encoded
		j.err = err
	}
	return quote.JSON(bytes.TrimSuffix(buf.Bytes(), []byte("\n")))
}

func (j *jsonWriter) write(b []byte) {
	if j.err == nil {
		_, j.err = j.Write(b)
	}
}

// end writes the end of the line, and flushes.
func (j *jsonWriter) end() {
	j.write([]byte("\n"))
	if j.err == nil {
		_ = http.NewResponseController(j.ResponseWriter).Flush() // not every ResponseWriter can
	}
}

// beginAnswer writes the head of an answer, and sets the deadline for writing all of it.
func beginAnswer(w http.ResponseWriter, status int, contentType string) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writePatience)) // not every ResponseWriter can
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
}
