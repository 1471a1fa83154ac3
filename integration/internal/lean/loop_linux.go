package lean

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

const (
	// nap is how long the loop leaves its sockets alone when nothing is being connected.
	nap = time.Millisecond
	// slowBuffer is a slow client's receive buffer: the kernel must not hide that it does not read.
	slowBuffer = 4 << 10
	bufferSize = 256 << 10
	// maxMessage bounds what is kept of a message that has not come whole.
	maxMessage   = 64 << 20
	faultsTold   = 5
	bindLateOpt  = 24 // IP_BIND_ADDRESS_NO_PORT: the port is chosen on connect, per target
	stampOpt     = syscall.SO_TIMESTAMPNS
	controlSpace = 64
)

type phase byte

const (
	dialing phase = iota // the request is not written yet
	asking               // the answer's headers have not come
	greeting
	open
	ended
)

// client is one connection and what it has received.
type client struct {
	fd    int
	key   int64 // its number
	name  string
	next  int64 // sequence number that comes next
	rest  []byte
	began int64 // nanoseconds
	phase phase
	slow  bool
}

// loop owns the clients of a process.
type loop struct {
	ep  int
	end chan struct{} // closed by stop

	// Owned by run.
	buf     []byte
	control []byte
	iov     syscall.Iovec
	msg     syscall.Msghdr

	mu      sync.Mutex
	clients map[int]*client // guarded by mu; by descriptor
	join    Join
	addrs   []syscall.SockaddrInet4
	begun   int // clients of join so far
	todo    int // clients of join that are not begun
	making  int // begun and neither connected nor failed
	joined  Joined
	epoch   int64
	paused  bool // slow clients do not read
	seen    Seen
}

func raiseLimit() {
	var lim syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim) == nil && lim.Cur < lim.Max {
		lim.Cur = lim.Max
		_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &lim) // what is missing shows when clients connect
	}
}

func newLoop() (*loop, error) {
	ep, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	return &loop{
		ep: ep, end: make(chan struct{}), clients: make(map[int]*client), paused: true,
		buf: make([]byte, bufferSize), control: make([]byte, controlSpace),
	}, nil
}

func (l *loop) stop() { close(l.end) }

func (l *loop) run() {
	events := make([]syscall.EpollEvent, 1024)
	for {
		select {
		case <-l.end:
			l.mu.Lock()
			for _, c := range l.clients {
				_ = syscall.Close(c.fd)
			}
			l.mu.Unlock()
			_ = syscall.Close(l.ep)
			return
		default:
		}
		n, err := syscall.EpollWait(l.ep, events, 50)
		if err != nil && !errors.Is(err, syscall.EINTR) {
			panic(fmt.Sprintf("epoll: %v", err)) // a descriptor of our own that is no epoll any more
		}
		l.mu.Lock()
		for _, e := range events[:max(n, 0)] {
			if c := l.clients[int(e.Fd)]; c != nil {
				l.ready(c)
			}
		}
		busy := l.making > 0
		l.mu.Unlock()
		if !busy {
			t := syscall.NsecToTimespec(int64(nap))
			_ = syscall.Nanosleep(&t, nil) // cut short by a signal is as good
		}
	}
}

func resolve(j Join) ([]syscall.SockaddrInet4, error) {
	out := make([]syscall.SockaddrInet4, 0, len(j.Targets))
	for _, target := range j.Targets {
		host, port, err := net.SplitHostPort(target)
		if err != nil {
			return nil, fmt.Errorf("target %q: %w", target, err)
		}
		n, err := strconv.Atoi(port)
		ip := net.ParseIP(host).To4()
		if err != nil || ip == nil {
			return nil, fmt.Errorf("target %q: want an IPv4 address and a port", target)
		}
		out = append(out, syscall.SockaddrInet4{Port: n, Addr: [4]byte(ip)})
	}
	if len(out) == 0 {
		return nil, errors.New("no target is given")
	}
	return out, nil
}

// startLocked begins as many connections as may be in the making.
func (l *loop) startLocked() {
	for l.todo > 0 && l.making < max(1, l.join.AtOnce) {
		i := l.begun
		l.begun++
		l.todo--
		l.making++
		if l.joined.First == 0 {
			l.joined.First = time.Now().UnixNano()
		}
		c := &client{key: l.join.First, name: l.join.Keys[i], began: time.Now().UnixNano(), slow: l.join.Slow > 0 && i%l.join.Slow == l.join.Slow-1}
		if !l.join.OneKey {
			c.key += int64(i)
		}
		var from net.IP
		if n := len(l.join.Sources); n > 0 {
			from = net.ParseIP(l.join.Sources[i%n])
		}
		if err := l.dial(c, from, &l.addrs[i%len(l.addrs)]); err != nil {
			l.making--
			l.blame("client %d: connect: %v", c.key, err)
		}
	}
}

func (l *loop) dial(c *client, from net.IP, to *syscall.SockaddrInet4) error {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	c.fd = fd
	err = syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, stampOpt, 1)
	if c.slow && err == nil {
		err = syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_RCVBUF, slowBuffer)
	}
	if ip := from.To4(); ip != nil && err == nil {
		if err = syscall.SetsockoptInt(fd, syscall.IPPROTO_IP, bindLateOpt, 1); err == nil {
			err = syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte(ip)})
		}
	}
	if err == nil {
		if err = syscall.Connect(fd, to); errors.Is(err, syscall.EINPROGRESS) {
			err = nil
		}
	}
	if err == nil {
		err = syscall.EpollCtl(l.ep, syscall.EPOLL_CTL_ADD, fd, &syscall.EpollEvent{Events: syscall.EPOLLOUT, Fd: int32(fd)}) //nolint:gosec // a descriptor
	}
	if err != nil {
		return errors.Join(err, syscall.Close(fd))
	}
	l.clients[fd] = c
	return nil
}

func (l *loop) watch(c *client, events uint32) error {
	return syscall.EpollCtl(l.ep, syscall.EPOLL_CTL_MOD, c.fd, &syscall.EpollEvent{Events: events, Fd: int32(c.fd)}) //nolint:gosec // a descriptor
}

// watchSlowLocked lets slow clients read, or not.
func (l *loop) watchSlowLocked() error {
	for _, c := range l.clients {
		if c.slow && c.phase == open {
			if err := l.watch(c, l.eventsOf(c)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *loop) eventsOf(c *client) uint32 {
	if c.slow && l.paused && c.phase == open {
		return 0
	}
	return syscall.EPOLLIN
}

// ready handles a socket that can be read, or written to for the first time. The caller holds mu.
func (l *loop) ready(c *client) {
	if c.phase == dialing {
		l.ask(c)
		return
	}
	rest := copy(l.buf, c.rest)
	n, at, err := l.receive(c.fd, l.buf[rest:])
	switch {
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.EINTR):
		return
	case err != nil:
		l.drop(c, "read: %v", err)
		return
	case n == 0:
		l.drop(c, "the connection ended")
		return
	}
	have := l.buf[:rest+n]
	used := l.take(c, have, at)
	if c.phase == ended {
		return
	}
	switch left := have[used:]; {
	case len(left) == 0:
		c.rest = nil
	case len(left) > maxMessage:
		l.drop(c, "a message of more than %d bytes", maxMessage)
	default:
		c.rest = append(c.rest[:0], left...)
		if len(l.buf) < 2*len(left) {
			l.buf = make([]byte, 4*len(left))
		}
	}
}

// ask writes the request for an upgrade.
func (l *loop) ask(c *client) {
	if code, err := syscall.GetsockoptInt(c.fd, syscall.SOL_SOCKET, syscall.SO_ERROR); err != nil || code != 0 {
		l.drop(c, "connect: %v", errors.Join(err, syscall.Errno(code)))
		return
	}
	req := fmt.Appendf(nil, "GET %s%s HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", l.join.Path, c.name)
	c.name = ""
	if n, err := syscall.Write(c.fd, req); err != nil || n != len(req) {
		l.drop(c, "request: %d of %d bytes written: %v", n, len(req), err)
		return
	}
	c.phase = asking
	if err := l.watch(c, syscall.EPOLLIN); err != nil {
		l.drop(c, "epoll: %v", err)
	}
}

// accepted is what RFC 6455 answers to the key above.
const accepted = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

// take handles what came and returns how much of it is done with.
func (l *loop) take(c *client, have []byte, at int64) (used int) {
	if c.phase == asking {
		end := bytes.Index(have, []byte("\r\n\r\n"))
		if end < 0 {
			return 0
		}
		if answer := have[:end]; !bytes.HasPrefix(answer, []byte("HTTP/1.1 101 ")) || !bytes.Contains(answer, []byte(accepted)) {
			l.drop(c, "upgrade: %.200q", have)
			return 0
		}
		used = end + 4
		c.phase = greeting
		if !l.join.Hello {
			l.connected(c, at)
		}
	}
	for c.phase != ended {
		op, msg, size := frame(have[used:])
		if size == 0 {
			break
		}
		if size < 0 {
			l.drop(c, "a frame against RFC 6455: % x", have[used:min(len(have), used+16)])
			break
		}
		used += size
		l.message(c, op, msg, at)
	}
	return used
}

// frame reads one whole frame: its payload and its size; a size of 0 means that more must come, one below it that
// servers do not send such frames.
func frame(b []byte) (op byte, payload []byte, size int) {
	if len(b) < 2 {
		return 0, nil, 0
	}
	length, head := int(b[1]&0x7f), 2
	if b[0]&0xf0 != 0x80 || b[1]&0x80 != 0 { // not final, compressed, or masked
		return 0, nil, -1
	}
	switch length {
	case 126:
		head = 4
		if len(b) < head {
			return 0, nil, 0
		}
		length = int(binary.BigEndian.Uint16(b[2:]))
	case 127:
		head = 10
		if len(b) < head {
			return 0, nil, 0
		}
		long := binary.BigEndian.Uint64(b[2:])
		if long > maxMessage {
			return 0, nil, -1
		}
		length = int(long) //nolint:gosec // bounded
	}
	if len(b) < head+length {
		return 0, nil, 0
	}
	return b[0] & 0x0f, b[head : head+length], head + length
}

func (l *loop) message(c *client, op byte, msg []byte, at int64) {
	switch op {
	case 1, 2:
	case 8:
		l.drop(c, "closed with %.125q", msg)
		return
	case 9:
		pong := append([]byte{0x8a, 0x80 | byte(len(msg)), 0, 0, 0, 0}, msg...) //nolint:gosec // at most 125
		if _, err := syscall.Write(c.fd, pong); err != nil {
			l.drop(c, "pong: %v", err)
		}
		return
	default:
		return
	}
	s, ok := readStamp(msg)
	if !ok {
		l.notice(c, msg, at)
		return
	}
	l.seen.Records++
	l.seen.Bytes += int64(len(msg))
	l.seen.Last = max(l.seen.Last, at)
	switch {
	case s.Epoch != l.epoch || s.Key != c.key:
		l.blame("client %d got record %d of key %d in epoch %d, in epoch %d", c.key, s.Seq, s.Key, s.Epoch, l.epoch)
		return
	case s.Seq != c.next:
		l.blame("client %d got record %d when %d was due", c.key, s.Seq, c.next)
	}
	c.next = s.Seq + 1
	if c.slow {
		l.seen.Slow++
		return // it is late by its own choice
	}
	l.seen.Delays.Add(time.Duration(at - s.Sent))
}

// notice handles a message without a record.
func (l *loop) notice(c *client, msg []byte, at int64) {
	const hello = `{"type":"hello"`
	switch {
	case bytes.HasPrefix(msg, []byte(hello)):
		if c.phase == greeting {
			l.connected(c, at)
		}
	case bytes.HasPrefix(msg, []byte(`{"type":"checkpoint"`)), bytes.HasPrefix(msg, []byte(`{"type":"waiting"`)):
	default:
		l.blame("client %d got %.200q", c.key, msg)
	}
}

func (l *loop) connected(c *client, at int64) {
	c.phase = open
	l.making--
	l.joined.Connected++
	l.joined.Last = max(l.joined.Last, at)
	l.joined.Took.Add(time.Duration(at - c.began))
	l.seen.Open++
	if c.slow {
		if err := l.watch(c, l.eventsOf(c)); err != nil {
			l.blame("client %d: epoll: %v", c.key, err)
		}
	}
	l.startLocked()
}

// drop ends a client that cannot go on, which is a fault.
func (l *loop) drop(c *client, format string, args ...any) {
	l.blame("client %d: "+format, append([]any{c.key}, args...)...)
	if c.phase == open {
		l.seen.Open--
	} else {
		l.making--
		defer l.startLocked()
	}
	c.phase = ended
	delete(l.clients, c.fd)
	_ = syscall.Close(c.fd)
}

func (l *loop) blame(format string, args ...any) {
	l.seen.Faults++
	if len(l.seen.First) < faultsTold {
		l.seen.First = append(l.seen.First, fmt.Sprintf(format, args...))
	}
}

func (l *loop) faultLocked() string {
	if len(l.seen.First) == 0 {
		return "nothing else is known"
	}
	return l.seen.First[0]
}

// lookLocked hands over what was counted, and counts anew all but clients and faults.
func (l *loop) lookLocked() Seen {
	s := l.seen
	l.seen = Seen{Open: s.Open, Faults: s.Faults, First: s.First, Last: s.Last}
	return s
}

// lackingLocked counts clients that have not received all that is due.
func (l *loop) lackingLocked(d Due) (n int) {
	for _, c := range l.clients {
		if (d.Slow || !c.slow) && c.next < d.of(c.key) {
			n++
		}
	}
	return n
}

func (l *loop) blameLocked(d Due) {
	for _, c := range l.clients {
		if due := d.of(c.key); (d.Slow || !c.slow) && c.next < due {
			l.blame("client %d has %d of %d records", c.key, c.next, due)
		}
	}
}

// receive reads from a socket, and says when what it read arrived.
func (l *loop) receive(fd int, into []byte) (n int, at int64, err error) {
	l.iov.Base = &into[0]
	l.iov.SetLen(len(into))
	l.msg.Iov, l.msg.Iovlen = &l.iov, 1
	l.msg.Control = &l.control[0]
	l.msg.SetControllen(len(l.control))
	got, _, errno := syscall.RawSyscall(syscall.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&l.msg)), syscall.MSG_DONTWAIT)
	if errno != 0 {
		return 0, 0, errno
	}
	const header = syscall.SizeofCmsghdr
	if l.msg.Controllen >= header+16 {
		h := (*syscall.Cmsghdr)(unsafe.Pointer(&l.control[0]))
		if h.Level == syscall.SOL_SOCKET && h.Type == stampOpt {
			t := (*syscall.Timespec)(unsafe.Pointer(&l.control[header]))
			return int(got), t.Nano(), nil
		}
	}
	return int(got), time.Now().UnixNano(), nil
}
