"""A browser page whose answers come late."""

import json
import time
from collections.abc import Callable

from playwright.sync_api import Page, Route


class Held:
    """The answer to the first request that is wanted, kept back until `let` lets it go. Others pass."""

    def __init__(self, page: Page, wanted: Callable[[dict], bool]):
        self.page, self.wanted, self.route, self.answer = page, wanted, None, None
        page.route("**/run/predict*", self._heard)

    def _heard(self, route: Route) -> None:
        if self.route is None and self.wanted(json.loads(route.request.post_data)):
            self.route = route
            self.answer = route.fetch()  # others come meanwhile
        else:
            route.continue_()

    def let(self) -> None:
        """Afterwards the answer has come."""
        with self.page.expect_response(lambda answer: answer.request == self.route.request):
            self.route.fulfill(response=self.answer)

    def wait(self) -> None:
        """Until there is one."""
        until = time.monotonic() + 60
        while self.answer is None:
            assert time.monotonic() < until, "nothing of the kind was asked for"
            self.page.evaluate("0")  # requests are heard meanwhile
