package mux

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// A faulty node may send any number of answers to operations that were not sent.
func TestUnexpectedAnswersAreLoggedOnce(t *testing.T) {
	message, err := proto.Marshal(&apiv1.SessionResponse{Answers: []*apiv1.Answer{{Id: 99}}})
	if err != nil {
		t.Fatal(err)
	}
	n := &scriptedNode{from: make(chan struct{})}
	for range 1000 {
		n.messages = append(n.messages, message)
	}
	close(n.from)
	var log bytes.Buffer
	c, err := Open(context.Background(), n, Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	<-c.Done()
	if got := strings.Count(log.String(), "not sent"); got != 1 {
		t.Errorf("%d lines, want one", got)
	}
}
