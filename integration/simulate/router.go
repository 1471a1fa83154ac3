package simulate

import (
	"fmt"
	"slices"
	"time"

	"github.com/pointsmanhq/pointsman/proto/link"

	router "github.com/pointsmanhq/pointsman/router/simulated"
)

// routerProc is one run of a router: the shell around its table, links and sessions, as the router's hub is.
type routerProc struct {
	w        *world
	place    string
	runs     int
	name     string
	proc     *proc
	pic      router.Picture
	seen     *snapshot
	cut      bool // from etcd
	table    *router.Table
	lanes    []*lane // greeted, and not yet reported as down
	keepers  []*keeper
	sessions []*session
	sockets  []*socket
	nextLink router.LinkID
	polling  bool
	draining bool
	cfg      router.SessionConfig
}

// startRouter runs a new process in a router's place.
func (w *world) startRouter(i int) {
	old := w.routers[i]
	r := &routerProc{
		w: w, place: old.place, runs: old.runs + 1, name: fmt.Sprintf("%s.%d", old.place, old.runs+1),
		table: router.EmptyTable(),
		cfg:   router.SessionConfig{Window: w.set.window, Heartbeat: time.Duration(w.set.heartbeat)},
	}
	w.routers[i] = r
	r.proc = &proc{w: w, name: r.name}
	w.note(anyone, anywhere, "ROUTER %s starts", r.name)
	w.etcd.watch(r.proc, &r.cut, r.picture)
	r.proc.every(min(sec, w.set.heartbeat/10), func() bool { r.tick(); return true })
}

func (r *routerProc) tick() {
	for _, s := range slices.Clone(r.sessions) {
		s.visit(func(now time.Time) { s.core.Tick(now) })
	}
	for _, k := range slices.Clone(r.sockets) {
		k.tick(r.w.time())
	}
}

// poll looks at pending sessions, every 20 ms while there are any.
func (r *routerProc) poll() {
	if r.polling {
		return
	}
	r.polling = true
	r.proc.after(20*ms, func() {
		r.polling = false
		r.pollNow(anywhere)
	})
}

func (r *routerProc) pollNow(partition int32) {
	for _, s := range slices.Clone(r.sessions) {
		if s.pending && (partition == anywhere || s.partition == partition) {
			s.visit(func(now time.Time) { s.core.Poll(now) })
			if s.pending {
				r.poll()
			}
		}
	}
}

func (r *routerProc) picture(st *snapshot) {
	if st.before(r.seen) {
		return
	}
	r.seen = st
	r.pic = st.picture()
	r.rebuild()
}

func (r *routerProc) rebuild() {
	old, next := r.put()
	r.reroute(old, next)
}

// put builds the next table.
func (r *routerProc) put() (old, next *router.Table) {
	old = r.table
	var up []router.Link
	for _, ln := range r.lanes {
		if ln.up {
			up = append(up, router.Link{ID: ln.id, Node: ln.keeper.node, Instance: ln.keeper.instance, Draining: ln.isDraining})
		}
	}
	next, err := router.BuildTable(old, r.pic, up)
	if err != nil {
		r.w.fail(anyone, "%s: table: %v", r.name, err)
	}
	r.table = next
	if next.Topic == nil {
		return old, next
	}
	for _, k := range r.keepers {
		k.wanted = false
	}
	for _, n := range next.Nodes() {
		if n.Listed {
			r.want(n.ID, n.Instance, n.Addr)
		}
	}
	return old, next
}

func (r *routerProc) reroute(old, next *router.Table) {
	if old.Topic != nil && old.TopicID != next.TopicID {
		for _, s := range slices.Clone(r.sessions) {
			s.visit(func(now time.Time) { s.recreate(now, next) })
		}
		return
	}
	if router.Grew(old, next) {
		for _, s := range slices.Clone(r.sessions) {
			s.visit(func(now time.Time) { s.grow(now, next) })
		}
	}
	for _, p := range router.Moved(old, next) {
		if r.w.trace != nil {
			r.w.note(anyone, p, "%s route of p%d: %s -> %s", r.name, p, r.who(old.Route(p)), r.who(next.Route(p)))
		}
		for _, s := range slices.Clone(r.sessions) {
			if s.partition == p || slices.Contains(s.follows, p) {
				s.visit(func(now time.Time) { s.route(now, next) })
			}
		}
	}
}

func (r *routerProc) lane(id router.LinkID) *lane {
	for _, ln := range r.lanes {
		if ln.id == id {
			return ln
		}
	}
	return nil
}

func (r *routerProc) who(id router.LinkID) string {
	if ln := r.lane(id); ln != nil {
		return fmt.Sprintf("link %d to %s", id, ln.machine.place)
	}
	return fmt.Sprintf("link %d", id)
}

// keeper keeps one node instance linked while it is wanted.
type keeper struct {
	r        *routerProc
	node     string
	instance string
	addr     string
	wanted   bool
	busy     bool
	attempts int
	poked    int // numbers pauses, so that a newer one replaces an older
}

func (r *routerProc) want(node, instance, addr string) {
	for _, k := range r.keepers {
		if k.instance == instance {
			k.wanted = true
			if !k.busy {
				k.pause(0)
			}
			return
		}
	}
	k := &keeper{r: r, node: node, instance: instance, addr: addr, wanted: true}
	r.keepers = append(r.keepers, k)
	k.pause(0)
}

func (k *keeper) pause(d int64) {
	k.poked++
	number := k.poked
	k.r.proc.after(d, func() {
		if number != k.poked || k.busy {
			return
		}
		if !k.wanted {
			k.r.keepers = slices.DeleteFunc(k.r.keepers, func(o *keeper) bool { return o == k })
			return
		}
		k.dial()
	})
}

const (
	dialTimeout = 2 * sec
	deadAfter   = 3 * sec
)

// dial opens a connection and says hello. It is given up after a while.
func (k *keeper) dial() {
	r, w := k.r, k.r.w
	k.busy = true
	m := w.machine(k.addr)
	n := m.cur
	ln := &lane{r: r, keeper: k, machine: m}
	failed := func(d int64) {
		r.proc.after(d, func() {
			if !ln.greeted && !ln.gone {
				ln.abandon()
			}
		})
	}
	failed(dialTimeout)
	if n == nil || n.proc.dead || w.net.cut(r.place, m.place) || w.net.cut(m.place, r.place) {
		if n != nil && n.proc.dead && !w.net.cut(r.place, m.place) {
			failed(w.delay()) // refused
		}
		return
	}
	ln.toNode = w.pipe(r.place, m.place, n.proc)
	ln.toRouter = w.pipe(m.place, r.place, r.proc)
	ln.toNode.send(controlSize, func() { n.accept(ln) })
}

// lane is the router's end of a link.
type lane struct {
	r          *routerProc
	keeper     *keeper
	machine    *machine
	id         router.LinkID
	toNode     *pipe
	toRouter   *pipe
	peer       *nodeLink
	streams    *router.Streams[*session]
	greeted    bool
	up         bool
	isDraining bool
	gone       bool
	heard      int64
}

// abandon ends an attempt that came to nothing.
func (ln *lane) abandon() {
	k := ln.keeper
	ln.gone, k.busy = true, false
	ln.hangUp()
	first := 50 * ms
	wait := min(first<<min(k.attempts, 10), 2*sec)
	k.attempts++
	k.pause(ln.r.w.between(wait/2, wait))
}

// hangUp ends the connection as far as it is the router's.
func (ln *lane) hangUp() {
	if ln.toNode == nil {
		return
	}
	ln.toNode.send(0, func() {
		if ln.peer != nil {
			ln.peer.end(false)
		}
	})
	ln.toRouter.closed = true
}

func (ln *lane) refused(string) {
	if !ln.gone && !ln.greeted {
		ln.abandon()
	}
}

func (ln *lane) welcome(topicID [16]byte, partitions int32, draining bool) {
	r := ln.r
	if ln.gone {
		return
	}
	n := ln.peer.n
	if n.instance != ln.keeper.instance || topicID != r.table.TopicID || partitions < r.table.Partitions() {
		ln.abandon()
		return
	}
	r.nextLink++
	ln.id, ln.greeted, ln.up, ln.isDraining, ln.heard = r.nextLink, true, true, draining, r.w.now
	ln.streams = router.NewStreams[*session]()
	ln.keeper.attempts = 0
	r.lanes = append(r.lanes, ln)
	r.w.note(anyone, anywhere, "%s link %d to %s up", r.name, ln.id, n.name)
	ln.live()
	r.rebuild()
}

// live pings, and ends the link when nothing was heard for too long.
func (ln *lane) live() {
	p, since := ln.r.proc, ln.r.w.now
	p.every(sec, func() bool {
		if ln.gone {
			return false
		}
		ln.toNode.send(0, func() {
			ln.peer.heard = ln.r.w.now
			ln.peer.send(0, func(*lane) {})
		})
		return true
	})
	last := since
	p.every(deadAfter/12, func() bool {
		now := ln.r.w.now
		if now-last > deadAfter/2 {
			since = now
		}
		last = now
		if !ln.gone && now-max(ln.heard, since) > deadAfter {
			ln.down("silent")
		}
		return !ln.gone
	})
}

// down is the end of a link: its sessions move on in one batch.
func (ln *lane) down(why string) {
	r := ln.r
	if ln.gone {
		return
	}
	if !ln.greeted {
		ln.abandon()
		return
	}
	ln.gone, ln.up = true, false
	r.w.note(anyone, anywhere, "%s link %d to %s down: %s", r.name, ln.id, ln.machine.place, why)
	ln.hangUp()
	old, next := r.put()
	orphans := ln.streams.Down()
	slices.SortFunc(orphans, func(a, b router.Target[*session]) int { return int(a.Number) - int(b.Number) })
	for _, o := range orphans {
		s := o.Owner
		s.visit(func(now time.Time) { s.linkDown(now, ln.id) })
	}
	r.reroute(old, next)
	r.lanes = slices.DeleteFunc(r.lanes, func(o *lane) bool { return o == ln })
	ln.keeper.busy = false
	ln.keeper.pause(0)
}

// receive takes a frame.
func (ln *lane) receive(fn func(ln *lane)) {
	if ln.gone {
		return
	}
	ln.heard = ln.r.w.now
	fn(ln)
}

func (ln *lane) attached(f link.Attached) {
	ln.streams.Attached(f.Stream, f.Live)
	if s, ok := ln.streams.Owner(f.Stream); ok {
		s.attachedAt(ln.id, f)
		s.visit(func(now time.Time) { s.core.Attached(now, ln.id, f) })
	}
}

func (ln *lane) record(f *link.Record) {
	for _, t := range ln.streams.Owners(nil, f.Streams) {
		s := t.Owner
		s.suspect(ln.id, t.Number, f.Offset)
		s.visit(func(now time.Time) { s.core.Record(now, ln.id, t.Number, f) })
	}
}

func (ln *lane) checkpoint(f *link.Checkpoint) {
	ln.streams.Checkpoint(f)
	ln.r.pollNow(f.Partition)
}

func (ln *lane) gap(f link.Gap) {
	if s, ok := ln.streams.Owner(f.Stream); ok {
		s.visit(func(now time.Time) { s.core.Gap(now, ln.id, f) })
		s.gapAt(ln.id, f)
	}
}

func (ln *lane) closed(f link.Closed) {
	if s, ok := ln.streams.Owner(f.Stream); ok {
		s.streams = slices.DeleteFunc(s.streams, func(h held) bool { return h.link == ln.id && h.id == f.Stream })
		s.visit(func(now time.Time) { s.core.Closed(now, ln.id, f) })
	}
	ln.streams.Remove(f.Stream)
}

func (ln *lane) draining() {
	if !ln.isDraining {
		ln.isDraining = true
		ln.r.rebuild()
	}
}

// exit ends the router's process.
func (r *routerProc) exit(orderly bool) {
	if r.proc.dead {
		return
	}
	r.w.note(anyone, anywhere, "ROUTER %s ends, orderly %t", r.name, orderly)
	r.proc.dead = true
	for _, ln := range r.lanes {
		ln.gone = true
		if orderly {
			ln.hangUp()
		} else {
			ln.toNode.drop()
			ln.toRouter.closed = true
		}
	}
	for _, s := range r.sessions {
		if s.sock == nil {
			s.conn.routerGone(orderly)
		}
	}
	for _, k := range r.sockets {
		if orderly {
			k.conn.down.send(0, k.conn.lost)
		}
	}
	r.sessions, r.sockets = nil, nil
}

// drain tells all clients to go, one after the other, and then exits.
func (r *routerProc) drain() {
	if r.draining || r.proc.dead {
		return
	}
	w := r.w
	w.note(anyone, anywhere, "ROUTER %s drains", r.name)
	r.draining = true
	for i, s := range slices.Clone(r.sessions) {
		if s.sock == nil {
			r.proc.after(int64(i)*10*ms+w.between(0, 10*ms), s.goAway)
		}
	}
	for i, k := range slices.Clone(r.sockets) {
		r.proc.after(int64(i)*10*ms+w.between(0, 10*ms), k.goAway)
	}
	r.proc.after(3*sec, func() { r.exit(true) })
}

func (w *world) machine(place string) *machine {
	for _, m := range w.machines {
		if m.place == place {
			return m
		}
	}
	w.fail(anyone, "no machine is called %s", place)
	return nil
}
