from docs.drawing import DRAWN, PAGE, drawing


def test_the_drawing_of_the_architecture_is_the_one_of_the_code():
    assert DRAWN.findall(PAGE.read_text()) == [drawing()], "`make drawing` draws it anew"
