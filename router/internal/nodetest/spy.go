package nodetest

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
)

// spy takes the connection from the library's hands, so that it can be reset and held still.
type spy struct {
	http.ResponseWriter
	n    *Node
	conn *net.Conn
}

// Hijack implements http.Hijacker.
func (s spy) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, rw, err := http.NewResponseController(s.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	*s.conn = c
	early, _ := rw.Reader.Peek(rw.Reader.Buffered())
	held := &freezable{Conn: c, n: s.n, early: bytes.NewReader(bytes.Clone(early))}
	return held, bufio.NewReadWriter(bufio.NewReader(held), bufio.NewWriter(held)), nil
}

// freezable is a connection that stands still with its node.
type freezable struct {
	net.Conn
	n     *Node
	early io.Reader
}

func (f *freezable) Read(p []byte) (int, error) {
	if n, err := f.early.Read(p); err == nil {
		return n, nil
	}
	n, err := f.Conn.Read(p)
	f.n.wait()
	return n, err
}

func (f *freezable) Write(p []byte) (int, error) {
	f.n.wait()
	return f.Conn.Write(p)
}
