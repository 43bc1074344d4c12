"""Web: the board's pages and its HTTP API.

Law: a page asks and shows; what a decision is, whom a case holds and what is kept of both is said one level down
(`board.decide`, `board.cases`, `board.audit`). Everything works as plain links and forms; htmx and the live stream only spare
people the reload. Who may do what is one table (`roles`), asked by pages and API alike. Personal data leaves the order's
document only through `masked`, and whoever sees more than that is written down first.
"""
