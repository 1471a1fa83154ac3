package load

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // RFC 6455 asks for SHA-1 in its handshake
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// The opcodes of RFC 6455.
const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xA
)

const (
	// maxMessage bounds what a server may send in one message: Kafka's largest record in practice, in base64.
	maxMessage = 140 << 20
	// writeTimeout bounds a control frame's way into the socket; a server that does not read for longer is dead.
	writeTimeout = 10 * time.Second
	acceptGUID   = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
)

// HandshakeError is an answer other than "101 Switching Protocols".
type HandshakeError struct {
	Status int
	Body   string
}

func (e *HandshakeError) Error() string {
	return fmt.Sprintf("websocket handshake: HTTP %d: %s", e.Status, strings.TrimSpace(e.Body))
}

// closeError is a close frame of the server.
type closeError struct {
	code   int
	reason string
}

func (e *closeError) Error() string { return fmt.Sprintf("closed with %d %q", e.code, e.reason) }

// wsConn is the client end of one WebSocket connection. One goroutine reads; control frames are written by it and
// by Close.
type wsConn struct {
	raw net.Conn
	br  *bufio.Reader

	mu       sync.Mutex // one frame at a time
	released sync.Once
}

type dialConfig struct {
	base       string // ws://host:port
	target     string // path and query
	header     http.Header
	protocols  []string
	readBuffer int // of the socket, 0 for the system's default
}

func dialWS(ctx context.Context, cfg dialConfig) (*wsConn, error) {
	u, err := url.Parse(cfg.base)
	if err != nil || u.Scheme != "ws" {
		return nil, fmt.Errorf("dial %q: want ws://host:port", cfg.base)
	}
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", u.Host, err)
	}
	if tcp, ok := raw.(*net.TCPConn); ok && cfg.readBuffer > 0 {
		if err := tcp.SetReadBuffer(cfg.readBuffer); err != nil {
			return nil, errors.Join(fmt.Errorf("set read buffer: %w", err), raw.Close())
		}
	}
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	c, err := handshake(raw, u.Host, cfg)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	return c, nil
}

func handshake(raw net.Conn, host string, cfg dialConfig) (*wsConn, error) {
	var nonce [16]byte
	if _, err := rand.Read(nonce[:]); err != nil {
		return nil, fmt.Errorf("make a websocket key: %w", err)
	}
	key := base64.StdEncoding.EncodeToString(nonce[:])
	var b strings.Builder
	fmt.Fprintf(&b, "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n", cfg.target, host, key)
	if len(cfg.protocols) > 0 {
		fmt.Fprintf(&b, "Sec-WebSocket-Protocol: %s\r\n", strings.Join(cfg.protocols, ", "))
	}
	for name, values := range cfg.header {
		for _, v := range values {
			fmt.Fprintf(&b, "%s: %s\r\n", name, v)
		}
	}
	b.WriteString("\r\n")
	if _, err := io.WriteString(raw, b.String()); err != nil {
		return nil, fmt.Errorf("websocket handshake: %w", err)
	}
	// Small: a fleet has thousands of them, and a socket that its client does not read must fill up soon.
	br := bufio.NewReaderSize(raw, 2048)
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		return nil, fmt.Errorf("websocket handshake: %w", err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		return nil, errors.Join(&HandshakeError{Status: resp.StatusCode, Body: string(body)}, resp.Body.Close())
	}
	sum := sha1.Sum([]byte(key + acceptGUID)) //nolint:gosec // as RFC 6455 asks
	if got, want := resp.Header.Get("Sec-WebSocket-Accept"), base64.StdEncoding.EncodeToString(sum[:]); got != want {
		return nil, fmt.Errorf("websocket handshake: accept %q, want %q", got, want)
	}
	return &wsConn{raw: raw, br: br}, nil
}

// read returns the next text or binary message, in buf's memory where it fits. Pings are answered on the way. A
// close frame is answered and returned as *closeError.
func (c *wsConn) read(buf []byte) (op byte, msg []byte, err error) {
	msg = buf[:0]
	for {
		fin, code, length, err := c.header()
		if err != nil {
			return 0, nil, err
		}
		if code >= opClose {
			if err := c.control(code, length); err != nil {
				return 0, nil, err
			}
			continue
		}
		switch {
		case code == opContinuation && op == 0, code != opContinuation && op != 0:
			return 0, nil, fmt.Errorf("websocket: opcode %d in the middle of a message or at its start", code)
		case code != opContinuation:
			op = code
		}
		if length > maxMessage || len(msg)+int(length) > maxMessage {
			return 0, nil, fmt.Errorf("websocket: message of %d bytes", length)
		}
		at := len(msg)
		if need := at + int(length); need > cap(msg) {
			grown := make([]byte, at, max(need, 2*cap(msg)))
			copy(grown, msg)
			msg = grown
		}
		msg = msg[:at+int(length)]
		if _, err := io.ReadFull(c.br, msg[at:]); err != nil {
			return 0, nil, fmt.Errorf("websocket: inside a frame: %w", err)
		}
		if fin {
			return op, msg, nil
		}
	}
}

func (c *wsConn) header() (fin bool, op byte, length uint64, err error) {
	var h [8]byte
	if _, err := io.ReadFull(c.br, h[:2]); err != nil {
		return false, 0, 0, fmt.Errorf("websocket: %w", err)
	}
	fin, op = h[0]&0x80 != 0, h[0]&0x0f
	if h[0]&0x70 != 0 {
		return false, 0, 0, errors.New("websocket: reserved bits set without an extension")
	}
	if h[1]&0x80 != 0 {
		return false, 0, 0, errors.New("websocket: masked frame from a server")
	}
	length = uint64(h[1] & 0x7f)
	switch length {
	case 126:
		_, err = io.ReadFull(c.br, h[:2])
		length = uint64(binary.BigEndian.Uint16(h[:2]))
	case 127:
		_, err = io.ReadFull(c.br, h[:8])
		length = binary.BigEndian.Uint64(h[:8])
	}
	if err != nil {
		return false, 0, 0, fmt.Errorf("websocket: inside a frame header: %w", err)
	}
	return fin, op, length, nil
}

func (c *wsConn) control(op byte, length uint64) error {
	if length > 125 {
		return fmt.Errorf("websocket: control frame of %d bytes", length)
	}
	payload := make([]byte, length)
	if _, err := io.ReadFull(c.br, payload); err != nil {
		return fmt.Errorf("websocket: inside a control frame: %w", err)
	}
	switch op {
	case opPing:
		return c.write(opPong, payload)
	case opPong:
		return nil
	case opClose:
		e := &closeError{code: 1005}
		if len(payload) >= 2 {
			e.code, e.reason = int(binary.BigEndian.Uint16(payload)), string(payload[2:])
		}
		// The server has said why; whether the answer arrives changes nothing.
		_ = c.write(opClose, payload[:min(len(payload), 2)])
		return e
	default:
		return fmt.Errorf("websocket: opcode %d", op)
	}
}

func (c *wsConn) write(op byte, payload []byte) error {
	frame := make([]byte, 0, len(payload)+14)
	frame = append(frame, 0x80|op)
	switch n := len(payload); {
	case n < 126:
		frame = append(frame, 0x80|byte(n))
	case n < 1<<16:
		frame = append(frame, 0x80|126)
		frame = binary.BigEndian.AppendUint16(frame, uint16(n))
	default:
		frame = append(frame, 0x80|127)
		frame = binary.BigEndian.AppendUint64(frame, uint64(n))
	}
	// A mask of zeros is a mask: this client talks to servers under test, not through caches that it could poison.
	frame = append(frame, 0, 0, 0, 0)
	frame = append(frame, payload...)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.raw.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return fmt.Errorf("websocket: %w", err)
	}
	if _, err := c.raw.Write(frame); err != nil {
		return fmt.Errorf("websocket: %w", err)
	}
	return nil
}

// release ends the connection without a word; a reader returns with an error.
func (c *wsConn) release() { c.released.Do(func() { _ = c.raw.Close() }) }
