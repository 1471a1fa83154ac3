package simulate

// network is what lies between processes: which pairs are cut off from each other, by direction.
type network struct {
	w    *world
	cuts map[way]int
	slow map[way]int64 // extra delay
	held []*pipe       // have packets that wait for a cut to heal
}

// way is a direction between two places. Places survive their processes: a cut outlasts a restart.
type way struct{ from, to string }

func (n *network) cut(from, to string) bool { return n.cuts[way{from, to}] > 0 }

// sever cuts a way for a while.
func (n *network) sever(from, to string, d int64) {
	n.cuts[way{from, to}]++
	n.w.after(d, func() {
		n.cuts[way{from, to}]--
		n.retry()
	})
}

// retry sends again what cuts had held up.
func (n *network) retry() {
	held := n.held
	n.held = nil
	for _, p := range held {
		p.heldUp = false
		if n.cut(p.fromPlace, p.toPlace) {
			p.hold()
			continue
		}
		missed := p.missed
		p.missed = 0
		for range missed {
			p.schedule()
		}
	}
}

// pipe is one direction of a connection: what is sent arrives in order, if it arrives.
type pipe struct {
	w         *world
	fromPlace string
	toPlace   string
	to        *proc
	last      int64    // when the newest packet arrives
	bytes     int64    // sent and not yet handled by the receiver
	queue     []packet // on the way, in order
	missed    int      // how many would have arrived but for a cut
	heldUp    bool
	dropped   bool // the sender's machine is gone: what was held up is lost
	closed    bool // the receiver takes nothing any more
	handled   func()
}

type packet struct {
	size int64
	fn   func()
}

func (w *world) pipe(fromPlace, toPlace string, to *proc) *pipe {
	return &pipe{w: w, fromPlace: fromPlace, toPlace: toPlace, to: to}
}

// send lets fn happen at the receiver after everything sent before.
func (p *pipe) send(size int64, fn func()) {
	if p.dropped {
		return
	}
	p.bytes += size
	p.queue = append(p.queue, packet{size, fn})
	p.schedule()
}

// schedule gives the foremost packet an occasion to arrive: there is one for each.
func (p *pipe) schedule() {
	d := p.w.delay()
	if len(p.w.net.slow) > 0 {
		d += p.w.net.slow[way{p.fromPlace, p.toPlace}]
	}
	p.last = max(p.last, p.w.now+d)
	p.w.at(p.last, p.arrive)
}

func (p *pipe) arrive() {
	if p.w.net.cut(p.fromPlace, p.toPlace) {
		p.missed++
		p.hold()
		return
	}
	if len(p.queue) == 0 {
		return // dropped
	}
	k := p.queue[0]
	p.queue[0] = packet{}
	p.queue = p.queue[1:]
	p.to.do(func() {
		p.bytes -= k.size
		if p.closed {
			return
		}
		k.fn()
		if p.handled != nil {
			p.handled()
		}
	})
}

func (p *pipe) hold() {
	if !p.heldUp {
		p.heldUp = true
		p.w.net.held = append(p.w.net.held, p)
	}
}

// drop is the end of the sender's machine: what is held up by a cut never arrives.
func (p *pipe) drop() {
	p.dropped = true
	if p.missed > 0 {
		p.queue, p.missed = nil, 0
	}
}
