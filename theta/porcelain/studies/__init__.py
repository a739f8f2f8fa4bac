"""The data of reports with pictures: what a change did to a model, by layer, by tensor, by element."""
