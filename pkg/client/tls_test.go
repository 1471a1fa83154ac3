package client_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/pointsmanhq/pointsman/pkg/client"
	"github.com/pointsmanhq/pointsman/proto/clientmsg"
)

func TestTalksTLSOverARealSocket(t *testing.T) {
	ended := make(chan websocket.StatusCode, 1)
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{clientmsg.JSON}})
		if err != nil {
			t.Errorf("accept: %v", err)
			return
		}
		if err := conn.Write(r.Context(), websocket.MessageText, clientmsg.AppendHello(nil, "c0", nil, true, time.Minute)); err != nil {
			t.Errorf("write: %v", err)
		}
		_, _, err = conn.Read(context.WithoutCancel(r.Context()))
		ended <- websocket.CloseStatus(err)
	}))
	defer srv.Close()

	c, err := client.Connect(t.Context(), client.Config{URLs: []string{srv.URL}, HTTPClient: srv.Client()})
	if err != nil {
		t.Fatal(err)
	}
	if h := want[*client.Hello](t, c); h.Cursor != "c0" || !h.Resumed {
		t.Errorf("got %+v", h)
	}
	mustClose(t, c)
	if got := <-ended; got != websocket.StatusNormalClosure {
		t.Errorf("close code = %v, want 1000", got)
	}
}
