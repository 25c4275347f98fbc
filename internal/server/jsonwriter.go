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

// turns are for what takes long: half of the processors work on it at a time. A thousand
// goroutines that all make long answers would be a thousand that heartbeats and keep-alives
// have to wait for.
type turns chan struct{}

func newTurns() turns { return make(turns, max(1, runtime.GOMAXPROCS(0)/2)) }

// take runs f when it is its turn. f waits for nobody.
func (t turns) take(f func()) {
	t <- struct{}{}
	defer func() { <-t }()
	f()
}

// shortPiece is encoded at once.
const shortPiece = 512

// jsonWriter writes what may be long piece by piece, as it is encoded: JSON makes some
// values six times as long, and a client that reads slowly is to hold one piece of that,
// not all.
type jsonWriter struct {
	http.ResponseWriter
	turns turns
	err   error // the client has gone away, or does not read: the rest is left out
}

func (s *Server) newJSONWriter(w http.ResponseWriter) *jsonWriter {
	beginAnswer(w, http.StatusOK, "application/json")
	return &jsonWriter{ResponseWriter: w, turns: s.turns}
}

// hole is where the elements of an empty array go. No string in JSON contains it: the
// quotes in it would be escaped.
func hole(encoded []byte, field string) int {
	at := []byte(`"` + field + `":[`)
	return bytes.Index(encoded, at) + len(at)
}

// page writes a page with these locks.
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

// lock writes a lock with these holders.
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
	if err := enc.Encode(v); err != nil && j.err == nil { // the documents are plain: a defect
		j.err = err
	}
	return quote.JSON(bytes.TrimSuffix(buf.Bytes(), []byte("\n")))
}

func (j *jsonWriter) write(b []byte) {
	if j.err == nil {
		_, j.err = j.Write(b)
	}
}

// end writes the end of the line, and has the client see all.
func (j *jsonWriter) end() {
	j.write([]byte("\n"))
	if j.err == nil {
		_ = http.NewResponseController(j.ResponseWriter).Flush() // not every ResponseWriter can
	}
}

// beginAnswer writes the head of an answer. The client has so long to read all of it.
func beginAnswer(w http.ResponseWriter, status int, contentType string) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writePatience)) // not every ResponseWriter can
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
}
